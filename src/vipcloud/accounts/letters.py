"""What our mails say. The subject carries the fact, and a failed act says what did not happen.

A letter is written once, as text: paragraphs with an empty line between. `html` makes the other part of the mail from
the same words: a paragraph `Add credit: https://…` is a button there, and `Your code: 1234 5678` stands out.
"""

import re
from html import escape
from typing import NamedTuple

_LINK = re.compile(r"([^:\n]{1,40}): (https?://[^\s\"<>]+)")
_FIGURE = re.compile(r"([^:\n]{1,40}): (\d[\d ]{3,20})")

# The colours are the design system's: the light ones, and where a mail program says that it is dark, the dark ones.
_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{subject}</title>
<style>
@media (prefers-color-scheme: dark) {{
.desk {{ background: #0d1215 !important; }}
.paper {{ background: #151a1d !important; border-color: #2b3336 !important; }}
.ink {{ color: #e8eeef !important; }}
.quiet a {{ color: #9ba5a8 !important; }}
.well {{ background: #1c2225 !important; }}
.button {{ background: #66bfdc !important; }}
.button a {{ color: #0d1215 !important; }}
}}
</style></head>
<body class="desk" style="margin:0;padding:0;background:#f1f5f6">
<table class="desk" role="presentation" width="100%" cellpadding="0" cellspacing="0" style="background:#f1f5f6">
<tr><td align="center" style="padding:24px 12px">
<table class="paper" role="presentation" width="100%" cellpadding="0" cellspacing="0" \
style="max-width:560px;background:#ffffff;border:1px solid #d7dedf">
<tr><td style="padding:28px;text-align:left;font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif">
<p class="ink" style="margin:0 0 20px;padding:0 0 12px;border-bottom:2px solid currentColor;color:#10191c">\
<b>vipcloud</b></p>
{paragraphs}
</td></tr></table>
</td></tr></table>
</body></html>
"""
_BUTTON = """\
<table role="presentation" cellpadding="0" cellspacing="0" style="margin:20px 0 8px"><tr>
<td class="button" style="background:#055977;padding:11px 20px"><a href="{link}" \
style="color:#ffffff;font-weight:600;text-decoration:none">{words}</a></td></tr></table>
<p class="quiet" style="margin:0 0 20px;font-size:13px;color:#545e63;word-break:break-all">\
<a href="{link}" style="color:#545e63">{link}</a></p>"""
_BIG = """\
<p class="ink well" style="margin:0 0 20px;padding:14px 18px;background:#ecf1f2;color:#10191c">{words}: \
<span style="font:600 24px/1.3 ui-monospace,Menlo,Consolas,monospace;white-space:nowrap">{figure}</span></p>"""
_PARAGRAPH = '<p class="ink" style="margin:0 0 16px;color:#10191c">{text}</p>'


class Letter(NamedTuple):
    subject: str
    body: str


def html(subject: str, body: str) -> str:
    """The words of a letter as HTML: tables and inline styles, as mail programs want them; nothing is loaded."""
    return _PAGE.format(subject=escape(subject), paragraphs="\n".join(map(_shown, body.strip().split("\n\n"))))


def _shown(paragraph: str) -> str:
    if match := _LINK.fullmatch(paragraph):
        return _BUTTON.format(words=escape(match.group(1)), link=escape(match.group(2)))
    if match := _FIGURE.fullmatch(paragraph):
        return _BIG.format(words=escape(match.group(1)), figure=escape(match.group(2)))
    return _PARAGRAPH.format(text=escape(paragraph).replace("\n", "<br>"))


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
        f"You, or somebody with your address, asked for a key. Confirm that it was you.\n\nConfirm: {link}\n\n"
        "Without that nothing happens, and no further mail follows.\n",
    )


def approved(link: str, credit: str) -> Letter:
    """`credit` in dollars, `0.00` for none."""
    gift = f"${credit} of credit is on it. " if credit.strip("0.") else ""
    return Letter(
        "Your vipcloud account is ready",
        f"Your account is open. {gift}This link signs you in and shows your first key, once, within 14 days.\n\n"
        f"Show my key: {link}\n",
    )


def invited(link: str, organisation: str, by: str) -> Letter:
    return Letter(
        f"{by} invites you to {organisation} at vipcloud",
        f"{by} lets you sign in to the account of {organisation}. This link does it, once, within 14 days.\n\n"
        f"Sign in: {link}\n",
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


def refunded(amount: str, number: str, card: str) -> Letter:
    """`number` of the receipt; `card` is empty where it is not known."""
    return Letter(
        f"{amount} goes back to your card",
        f"{amount} of the payment with the receipt {number} goes back to {card or 'the card that paid'}. "
        "Your credit is lower by what was left of it. Banks take up to ten days to show it.\n",
    )


def paid_twice(email: str, amount: str, number: str) -> Letter:
    """To the operator."""
    return Letter(
        f"{email} paid a top-up twice",
        f"A second payment of {amount} came in for one top-up of {email}. It became credit, receipt {number}.\n\n"
        f"If it was not meant: vipcloud payments refund {number}\n",
    )


def contested(email: str, amount: str, number: str, state: str) -> Letter:
    """To the operator. `state` of the dispute: open, won or lost."""
    what = {
        "open": "The account is closed until the bank decides. Answer in Stripe's dashboard.",
        "won": "The account is open again, unless another payment is contested or you closed it.",
        "lost": "What was free of the credit is taken back, and the account stays closed.",
    }[state]
    return Letter(f"Dispute {state}: {amount} of {email}", f"The payment {number} of {email} is contested. {what}\n")
