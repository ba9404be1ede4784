import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from vipcloud.storage import engine as storage
from vipcloud.storage import schema

TRANSFER = (1, "promo", "customer:a", 5, "grant", "grant/welcome", 0.0)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE transfer SET amount_nanousd = 6",
        "DELETE FROM transfer",
        "INSERT INTO transfer VALUES (1, 'promo', 'customer:b', 6, 'grant', NULL, 0) "
        "ON CONFLICT (id) DO UPDATE SET amount_nanousd = 6",
        "INSERT OR REPLACE INTO transfer VALUES (1, 'promo', 'customer:b', 6, 'grant', NULL, 0)",
        "INSERT OR REPLACE INTO transfer VALUES (2, 'promo', 'customer:b', 6, 'grant', 'grant/welcome', 0)",
        "TRUNCATE transfer",
    ],
)
def test_history_is_never_edited(engine: Engine, sql: str) -> None:
    if ("OR REPLACE" in sql and engine.name != "sqlite") or ("TRUNCATE" in sql and engine.name == "sqlite"):
        pytest.skip("the other database's words")
    with storage.writing(engine) as connection:
        connection.execute(insert(schema.transfer).values(TRANSFER))
    with pytest.raises(IntegrityError, match="transfers are immutable"), storage.writing(engine) as connection:
        connection.execute(text(sql))
    with storage.reading(engine) as connection:
        assert connection.execute(select(schema.transfer)).all() == [TRANSFER]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (schema.transfer, (2, "promo", "revenue", 0, "grant", None, 0.0)),
        (schema.transfer, (2, "promo", "revenue", -1, "grant", None, 0.0)),
        (schema.transfer, (2, "promo", "promo", 1, "grant", None, 0.0)),
        (schema.transfer, (1, "promo", "revenue", 1, "grant", None, 0.0)),
        (schema.transfer, (2, "promo", "revenue", 1, "grant", "grant/welcome", 0.0)),
        (schema.balance, ("promo", -1, 0)),
        (schema.account, ("a", "Ada@example.com", "payg", None, None, None, False, 0.0)),
        (schema.account, ("a", "ada@example.com", "payg", -1, None, None, False, 0.0)),
        (schema.api_key, ("k", "nobody", bytes(32), "vc-sk-…", "", 0.0, None)),
    ],
)
def test_the_schema_refuses_what_can_never_be(engine: Engine, table: object, values: tuple[object, ...]) -> None:
    with storage.writing(engine) as connection:
        connection.execute(insert(schema.transfer).values(TRANSFER))
    with pytest.raises(IntegrityError), storage.writing(engine) as connection:
        connection.execute(insert(table).values(values))  # type: ignore[arg-type]


def test_numbers_of_the_change_feed_are_never_used_again(engine: Engine) -> None:
    with storage.writing(engine) as connection:
        schema.announce(connection, schema.ACCOUNT_CHANGED, "a")
        schema.announce(connection, schema.ACCOUNT_CHANGED, "b")
        connection.execute(text("DELETE FROM change"))
        schema.announce(connection, schema.ACCOUNT_CHANGED, "c")
        assert connection.execute(select(schema.change)).all() == [(3, "account", "c")]
