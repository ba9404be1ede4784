import pytest

from vipcloud.http.headers import STATUS_LINES, header_block


def test_a_block_is_one_line_per_pair() -> None:
    assert header_block([]) == b""
    assert header_block([("a", "b"), ("c", "d e")]) == b"a: b\r\nc: d e\r\n"


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b", "a\r\nset-cookie: b"])
def test_what_would_split_an_answer_is_refused_in_names_and_values(text: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        header_block([("name", text)])
    with pytest.raises(ValueError, match="control character"):
        header_block([(text, "value")])


def test_text_beyond_latin_1_does_not_raise() -> None:
    assert header_block([("a", "größe €")]) == "a: größe ?\r\n".encode("latin-1")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (431, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (529, b"HTTP/1.1 529 Unknown\r\n"),
    ],
)
def test_a_status_line_has_its_reason(status: int, line: bytes) -> None:
    assert STATUS_LINES[status] == line
