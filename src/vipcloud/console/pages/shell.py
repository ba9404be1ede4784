"""What every page of the dashboard shows around its own: whose account it is, and its credit."""

from typing import Any

from sqlalchemy import Connection

from vipcloud.accounts import operators
from vipcloud.accounts.people import Visitor
from vipcloud.console import visits
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import store as ledger


def context(request: AnyRequest, connection: Connection, visitor: Visitor, page: str) -> dict[str, Any]:
    return {
        "page": page,
        "account": visitor.account,
        "member": visitor.member,
        "credit": ledger.balance(connection, visitor.account.id),
        "form_token": visits.form_token(request),
        "operates": operators.is_operator(connection, visitor.member.id),
        "read_only": visitor.member.role != "owner",
    }
