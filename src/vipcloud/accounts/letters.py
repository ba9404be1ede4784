"""What our mails say. Text only; the subject carries the fact, and a failed act says what did not happen."""

from typing import NamedTuple


class Letter(NamedTuple):
    subject: str
    body: str


def code(number: str, until: str, browser: str) -> Letter:
    """`until` is a clock time, `browser` what asked for the code."""
    return Letter(
        f"{number[:4]} {number[4:]} is your code for vipcloud",
        f"Your code: {number[:4]} {number[4:]}\n\n"
        f"It works until {until}, once, and only in the browser that asked for it: {browser}.\n\n"
        "Did you not ask for it? Then somebody typed your address. Nothing has happened; do not pass the code on.\n",
    )


def confirm(link: str) -> Letter:
    return Letter(
        "Confirm your address for vipcloud's waitlist",
        f"You, or somebody with your address, asked for a key. Confirm that it was you:\n\n{link}\n\n"
        "Without that nothing happens, and no further mail follows.\n",
    )


def approved(link: str, credit: str) -> Letter:
    """`credit` in dollars, `0.00` for none."""
    gift = f"${credit} of credit is on it. " if credit.strip("0.") else ""
    return Letter(
        "Your vipcloud account is ready",
        f"Your account is open. {gift}This link signs you in and shows your first key, once, within 14 days:\n\n"
        f"{link}\n",
    )


def invited(link: str, organisation: str, by: str) -> Letter:
    return Letter(
        f"{by} invites you to {organisation} at vipcloud",
        f"{by} lets you sign in to the account of {organisation}. This link does it, once, within 14 days:\n\n{link}\n",
    )


def rejected() -> Letter:
    return Letter(
        "About your request for a vipcloud key",
        "We cannot give you a key at present. Nothing was charged and your address is used for nothing else.\n",
    )


def key_changed(name: str, masked: str, what: str, by: str) -> Letter:
    """`what` happened to a key, such as `created`."""
    return Letter(
        f"Key {name} was {what}",
        f"The key {name} ({masked}) was {what} by {by}.\n\nWas that none of you? Revoke it, and write to us.\n",
    )


def low_credit(left: str, bound: str, link: str) -> Letter:
    """Amounts with their dollar sign."""
    return Letter(
        f"{left} of credit is left at vipcloud",
        f"Your credit has fallen below {bound}: {left} is left. When it is used up, requests answer 402.\n\n"
        f"Add credit: {link}\n\n"
        "On the same page you choose when we write, and whether your card is charged by itself.\n",
    )


def recharged(amount: str, card: str, left: str, link: str) -> Letter:
    """`card` is empty where it is not known."""
    paid = card or "Your saved card"
    return Letter(
        f"{amount} of credit was added at vipcloud",
        f"Your credit had fallen below what you chose, so {paid} was charged {amount}. You now have {left}.\n\n"
        f"Receipt: {link}\n\n"
        "You switch this off on the page Credit.\n",
    )


def recharge_stopped(card: str, reason: str, link: str) -> Letter:
    """`reason` is the bank's."""
    return Letter(
        "Your card was refused: automatic recharging is off",
        f"{card or 'Your saved card'} was to be charged for credit. Nothing was charged: {reason}\n\n"
        "It is not tried again until you switch it on. Your keys work for as long as there is credit.\n\n"
        f"Add credit: {link}\n",
    )


def recharge_capped(cap: str, link: str) -> Letter:
    """`cap` per month, with its dollar sign."""
    return Letter(
        f"Automatic recharging has reached {cap} this month",
        f"Your credit is below what you chose, and another charge would be beyond your cap of {cap} a month. "
        "Nothing was charged. From the first of the month (UTC) on it goes on by itself.\n\n"
        f"Add credit, or raise the cap: {link}\n",
    )
