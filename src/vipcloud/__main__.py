"""`python -m vipcloud`: the same as the `vipcloud` command."""

from vipcloud.cli.main import run

if __name__ == "__main__":
    run()
