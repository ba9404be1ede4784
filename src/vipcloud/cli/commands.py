"""Every command of `vipcloud`."""

from vipcloud.cli import (
    accounts,
    bookkeeper,
    console,
    doctor,
    incidents,
    keys,
    ledger,
    models,
    payments,
    people,
    promos,
    serve,
    sim,
    upstreams,
    waitlist,
    watch,
)
from vipcloud.cli.main import group

app = group()
app.command("serve")(serve.serve)
app.add_typer(accounts.app, name="accounts", help="Customers: create, list, show, give credit.")
app.add_typer(keys.app, name="keys", help="API keys: create, list, revoke.")
app.add_typer(models.app, name="models", help="The catalogue: what is sold, at what price, from where.")
app.add_typer(upstreams.app, name="upstreams", help="Our accounts at the providers: list, test, drain, revive.")
app.add_typer(waitlist.app, name="waitlist", help="Who asks for a key: list, approve, reject.")
app.add_typer(people.app, name="people", help="Who may sign in, and who of them is an operator.")
app.add_typer(incidents.app, name="incidents", help="What the status page tells people: open, update, resolve, list.")
app.add_typer(ledger.app, name="ledger", help="The books: verify, statements, export.")
app.add_typer(promos.app, name="promos", help="Promo codes: create, list, end.")
app.add_typer(payments.app, name="payments", help="Card payments: list, refund, compare with Stripe.")
app.command("sim")(sim.sim)
app.command("doctor")(doctor.doctor)
app.command("bookkeeper", hidden=True)(bookkeeper.bookkeeper)
app.command("console", hidden=True)(console.console)
app.command("watch", hidden=True)(watch.watch)
