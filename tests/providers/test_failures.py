"""Every error row of the providers' sheets, and what becomes of it for caller, account and next attempt."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.errors import BadRequest, ContentFiltered, ContextLengthExceeded, RateLimited, UpstreamFailed
from vipcloud.providers import catalog, failures
from vipcloud.providers.catalog import catalog_of

PACKAGED = catalog.packaged_toml()
PROVIDERS = catalog_of(PACKAGED).providers
DEEPSEEK, ZHIPU, MINIMAX = PROVIDERS["deepseek"], PROVIDERS["zhipu"], PROVIDERS["minimax"]
ZHIPU_JWT = catalog_of(PACKAGED, '[providers.zhipu]\nauth = "jwt"').providers["zhipu"]


def deepseek(message: str, kind: str = "invalid_request_error") -> bytes:
    return msgspec.json.encode(
        {"error": {"message": message, "type": kind, "param": None, "code": "invalid_request_error"}}
    )


def zhipu(code: str, message: str = "消息") -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message}})


def moonshot(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind}})


def native(code: str, message: str = "said") -> bytes:
    return msgspec.json.encode({"code": code, "message": message, "request_id": "7d"})


def compatible(code: str, message: str = "said") -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": code, "param": None, "code": code}})


# Kind, what the caller gets, another attempt?, by the same account?, the account's state.
REFUSED = ("bad_request", 400, 0, 0, None)
TOO_LONG = ("context_length", 400, 0, 0, None)
FILTERED = ("content_filter", 400, 0, 0, None)
THROTTLED = ("rate_limited", 429, 1, 0, "cooling")
USED_UP = ("quota_exhausted", 429, 1, 0, "suspended")
ARREARS = ("arrears", 502, 1, 0, "suspended")
NO_KEY = ("auth", 502, 1, 0, "removed")
CLOSED = ("no_access", 502, 1, 0, "no_access")
STALE = ("stale_mapping", 502, 1, 0, None)
BROKEN = ("server_error", 502, 1, 1, None)
LATE = ("timeout", 504, 1, 0, None)

# status, body, kind, what the caller gets, another attempt?, by the same account?, the account's state
DEEPSEEK_ROWS = [
    (400, deepseek("The supported API model names are a or b, but you passed c."), "stale_mapping", 502, 1, 0, None),
    (400, deepseek("Content Exists Risk"), "content_filter", 400, 0, 0, None),
    (400, deepseek("This model's maximum context length is 65536 tokens."), "context_length", 400, 0, 0, None),
    (400, deepseek("The `reasoning_content` in the thinking mode must be passed back"), "bad_request", 400, 0, 0, None),
    (400, deepseek("Failed to deserialize the JSON body into the target type"), "bad_request", 400, 0, 0, None),
    (400, deepseek("unknown variant `developer`"), "bad_request", 400, 0, 0, None),
    (400, deepseek("This response_format type is unavailable now"), "bad_request", 400, 0, 0, None),
    (401, deepseek("Authentication Fails", "authentication_error"), "auth", 502, 1, 0, "removed"),
    (402, deepseek("Insufficient Balance", "unknown_error"), "arrears", 502, 1, 0, "suspended"),
    (404, b"", "malformed", 502, 1, 0, None),
    (404, deepseek("Not Found"), "stale_mapping", 502, 1, 0, None),
    (413, b"<html>too large</html>", "bad_request", 400, 0, 0, None),
    (422, b"temperature: invalid value", "bad_request", 400, 0, 0, None),
    (422, deepseek("invalid parameters"), "bad_request", 400, 0, 0, None),
    (429, deepseek("Rate limit reached"), "rate_limited", 429, 1, 0, "cooling"),
    (429, b"", "rate_limited", 429, 1, 0, "cooling"),
    (500, deepseek("Internal Server Error", "server_error"), "server_error", 502, 1, 1, None),
    (500, b"", "server_error", 502, 1, 1, None),
    (503, deepseek("Service is overloaded"), "overloaded", 502, 1, 1, None),
    (502, b"<html>bad gateway</html>", "server_error", 502, 1, 1, None),
    (403, b"<html>blocked</html>", "malformed", 502, 1, 0, None),
    (400, b"<html>blocked</html>", "malformed", 502, 1, 0, None),
]

ZHIPU_ROWS = [
    *[(401, zhipu(code), "auth", 502, 1, 0, "removed") for code in ("401", "1000", "1001", "1002", "1004", "1100")],
    (401, zhipu("1003"), "auth", 502, 1, 0, "removed"),  # a raw key does not expire and come back
    *[(429, zhipu(code), "auth", 502, 1, 0, "removed") for code in ("1110", "1111", "1112", "1121")],
    (429, zhipu("1113", "Insufficient balance"), "arrears", 502, 1, 0, "suspended"),
    (429, zhipu("1120"), "server_error", 502, 1, 1, None),
    *[(400, zhipu(code), "bad_request", 400, 0, 0, None) for code in ("1200", "1210", "1213", "1214", "1215")],
    (400, zhipu("1211"), "stale_mapping", 502, 1, 0, None),
    (400, zhipu("1212"), "stale_mapping", 502, 1, 0, None),
    (400, zhipu("1214", "modelCode: does not exist"), "stale_mapping", 502, 1, 0, None),
    *[(434, zhipu(code), "no_access", 502, 1, 0, "no_access") for code in ("1220", "1221", "1222")],
    (434, zhipu("9999"), "no_access", 502, 1, 0, "no_access"),
    (435, zhipu("9999"), "bad_request", 400, 0, 0, None),
    (500, zhipu("1230"), "server_error", 502, 1, 1, None),
    (500, zhipu("1234"), "server_error", 502, 1, 1, None),
    (400, zhipu("1231"), "duplicate_request", 502, 1, 1, None),
    (400, zhipu("1261"), "context_length", 400, 0, 0, None),
    (400, zhipu("1300"), "content_filter", 400, 0, 0, None),
    (
        400,
        b'{"error":{"code":"1301","message":"x"},"contentFilter":[{"level":1,"role":"user"}]}',
        "content_filter",
        400,
        0,
        0,
        None,
    ),
    (429, zhipu("1302"), "rate_limited", 429, 1, 0, "cooling"),
    (429, zhipu("1303"), "rate_limited", 429, 1, 0, "cooling"),
    *[(429, zhipu(code), "quota_exhausted", 429, 1, 0, "suspended") for code in ("1304", "1308", "1310", "1313")],
    (429, zhipu("1305"), "overloaded", 429, 1, 1, None),
    (429, zhipu("1312"), "overloaded", 429, 1, 1, None),
    *[(429, zhipu(code), "no_access", 502, 1, 0, "no_access") for code in ("1309", "1311", "1315")],
    (500, zhipu("500"), "server_error", 502, 1, 1, None),
    (429, zhipu("9999"), "rate_limited", 429, 1, 0, "cooling"),
    (400, b'{"error":{"code":1261,"message":"a number for a code"}}', "context_length", 400, 0, 0, None),
]

MOONSHOT_ROWS = [
    (400, moonshot("content_filter", "The request was rejected because it was considered high risk"), *FILTERED),
    (400, moonshot("invalid_request_error", "Input token length too long"), *TOO_LONG),
    (400, moonshot("invalid_request_error", "Your request exceeded model token limit: 262144"), *TOO_LONG),
    (400, moonshot("invalid_request_error", "invalid temperature: only 1 is allowed for this model"), *REFUSED),
    (401, moonshot("invalid_authentication_error", "Invalid Authentication"), *NO_KEY),
    (401, moonshot("incorrect_api_key_error", "Incorrect API key provided"), *NO_KEY),
    (403, moonshot("permission_denied_error", "IP not allowed"), *NO_KEY),
    (404, moonshot("resource_not_found_error", "Not found the model kimi-k9 or Permission denied"), *STALE),
    (429, moonshot("engine_overloaded_error", "The engine is currently overloaded"), "overloaded", 429, 1, 1, None),
    (429, moonshot("rate_limit_reached_error", "reached max organization concurrency: 3"), *THROTTLED),
    (429, moonshot("rate_limit_reached_error", "reached organization max RPM: 3"), *THROTTLED),
    (429, moonshot("rate_limit_reached_error", "reached organization TPM rate limit"), *THROTTLED),
    (429, moonshot("rate_limit_reached_error", "reached organization TPD rate limit"), *USED_UP),
    (429, moonshot("exceeded_current_quota_error", "check your plan and billing details"), *ARREARS),
    (499, moonshot("client_closed_request", "closed"), *BROKEN),
    (500, moonshot("server_error", "oops"), *BROKEN),
    (500, moonshot("unexpected_output", "oops"), *BROKEN),
    (503, moonshot("server_unavailable", "busy"), "overloaded", 502, 1, 1, None),
    (504, moonshot("server_error", "2 hours"), *LATE),
    (504, b"<html>", *LATE),
]

DASHSCOPE_ROWS = [
    (400, native("InvalidParameter"), *REFUSED),
    (400, native("InvalidParameter.Anything"), *REFUSED),
    (400, compatible("invalid_parameter_error"), *REFUSED),
    (400, compatible("invalid_value"), *REFUSED),
    (400, compatible("invalid_request_error"), *REFUSED),
    (400, compatible("InternalError.Algo.InvalidParameter", "Unexpected item type in content"), *REFUSED),
    (400, native("InvalidParameter", "Range of input length should be [1, 258048]"), *TOO_LONG),
    (400, compatible("invalid_parameter_error", "Range of input length should be [1, 258048]"), *TOO_LONG),
    (400, native("InvalidParameter.NotSupportEnableThinking"), *STALE),
    (400, compatible("Arrearage", "Access denied, please make sure your account is in good standing."), *ARREARS),
    (400, native("DataInspectionFailed"), *FILTERED),
    (400, compatible("data_inspection_failed", "Input data may contain inappropriate content."), *FILTERED),
    (400, native("InvalidParameter.DataInspection", "Unable to download the media resource"), *FILTERED),
    (401, native("InvalidApiKey"), *NO_KEY),
    (401, compatible("invalid_api_key", "Incorrect API key provided."), *NO_KEY),
    (401, native("NOT AUTHORIZED"), *NO_KEY),
    *[(403, native(f"{prefix}AccessDenied"), *CLOSED) for prefix in ("", "Model.", "Workspace.")],
    (403, native("AccessDenied.Unpurchased"), *CLOSED),
    (403, native("AllocationQuota.FreeTierOnly"), *CLOSED),
    (403, compatible("insufficient_quota"), *CLOSED),
    (404, native("ModelNotFound"), *STALE),
    (404, compatible("model_not_found"), *STALE),
    (404, compatible("model_not_supported"), *STALE),
    (413, native("BadRequest.TooLarge"), *REFUSED),
    (408, native("RequestTimeOut"), *REFUSED),
    *[(429, native(f"Throttling{what}"), *THROTTLED) for what in ("", ".RateQuota", ".AllocationQuota", ".BurstRate")],
    (429, compatible("limit_requests", "You have exceeded your current requests list"), *THROTTLED),
    (429, compatible("limit_burst_rate", "Request rate increased too quickly"), *THROTTLED),
    (429, compatible("insufficient_quota", "You exceeded your current quota, please check your plan"), *THROTTLED),
    *[(429, native(code), *ARREARS) for code in ("CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue")],
    *[
        (500, native(code), *BROKEN)
        for code in ("InternalError", "InternalError.Algo", "SystemError", "ModelServiceFailed")
    ],
    (500, native("RequestTimeOut"), *LATE),
    (500, native("InternalError.Timeout"), *LATE),
    (503, native("ModelServingError"), "overloaded", 502, 1, 1, None),
    (500, native("ModelUnavailable"), "overloaded", 502, 1, 1, None),
    (400, b'data: {"error":{"code":"Arrearage","message":"x"}}', *ARREARS),
]

# A number in `base_resp` with status 200, and the same number at the end of a message with any status.
MINIMAX_CODES: list[tuple[tuple[int, ...], str, tuple[Any, ...]]] = [
    ((1000, 1013, 1024, 1033), "unknown error", BROKEN),
    ((1001,), "timeout", LATE),
    ((1002, 1039, 1041), "rate limit", THROTTLED),
    ((1004, 2049), "login fail", NO_KEY),
    ((1008,), "insufficient balance", ARREARS),
    ((1026,), "input new_sensitive", FILTERED),
    ((1027,), "output new_sensitive", ("output_filtered", 400, 0, 0, None)),
    ((1028, 1030, 2056), "usage limit exceeded", USED_UP),
    ((1042,), "invisible characters", REFUSED),
    ((2013,), "invalid params, invalid chat setting", REFUSED),
    ((2013,), "invalid params, unknown model 'x'", STALE),
    ((2013,), "invalid params, context window exceeds limit", TOO_LONG),
    ((2044, 2061), "your current token plan not support model", CLOSED),
]
MINIMAX_ROWS = [
    (status, body, *meaning)
    for codes, message, meaning in MINIMAX_CODES
    for code in codes
    for status, body in (
        (200, msgspec.json.encode({"base_resp": {"status_code": code, "status_msg": message}})),
        *(
            (status, msgspec.json.encode({"type": "error", "error": {"message": f"{message} ({code})", "type": "x"}}))
            for status in (400, 429, 500)
        ),
    )
]
MINIMAX_ROWS += [
    (502, b"<html>edge</html>", *BROKEN),
    (500, b'{"error":"edge"}', *BROKEN),
    (402, b'{"error":{"message":"no money","type":"insufficient_balance_error"}}', *ARREARS),
]
ROWS = [
    (PROVIDERS[provider], *row)
    for provider, rows in {
        "deepseek": DEEPSEEK_ROWS,
        "zhipu": ZHIPU_ROWS,
        "moonshot": MOONSHOT_ROWS,
        "dashscope": DASHSCOPE_ROWS,
        "minimax": MINIMAX_ROWS,
    }.items()
    for row in rows
]


@pytest.mark.parametrize(("provider", "status", "body", "kind", "told", "again", "same", "state"), ROWS)
def test_each_row_of_the_sheets_means_what_it_says(
    provider: Any, status: int, body: bytes, kind: str, told: int, again: int, same: int, state: str | None
) -> None:
    failure = failures.classify(provider, status, body, None)
    assert (failure.kind, failure.status) == (kind, status)
    assert (failure.retryable, failure.same_account, failure.account_state) == (bool(again), bool(same), state)
    assert failure.error().status == told


def test_an_expired_token_is_signed_anew_where_tokens_are_signed() -> None:
    failure = failures.classify(ZHIPU_JWT, 401, zhipu("1003"), None)
    assert (failure.kind, failure.same_account, failure.account_state) == ("token_expired", True, None)
    assert failure.error().status == 502


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, deepseek("This model's maximum context length is 9 tokens."), ContextLengthExceeded),
        (400, deepseek("Content Exists Risk"), ContentFiltered),
        (400, deepseek("unknown variant"), BadRequest),
        (429, deepseek("Rate limit reached"), RateLimited),
        (401, deepseek("Authentication Fails"), UpstreamFailed),
    ],
)
def test_the_callers_error_is_of_the_right_class(status: int, body: bytes, error: type[Exception]) -> None:
    assert type(failures.classify(DEEPSEEK, status, body, None).error()) is error


@given(
    st.sampled_from(list(PROVIDERS.values())),
    st.integers(200, 599),
    st.binary(max_size=60) | st.sampled_from([body for _, _, body, *_ in ROWS]),
)
def test_no_answer_of_an_upstream_blames_the_callers_key_or_purse(provider: Any, status: int, body: bytes) -> None:
    error = failures.classify(provider, status, body, None).error()
    assert error.status in (400, 429, 502, 504)
    msgspec.json.decode(error.body())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "message", "type", "base_resp", "status_code"]), inner)
    ),
    max_leaves=10,
)


@given(JSON, st.integers(200, 599))
def test_no_json_makes_classify_fall_over(payload: Any, status: int) -> None:
    failures.classify(MINIMAX, status, msgspec.json.encode(payload), None).error()


@given(st.dictionaries(st.sampled_from(["error", "code", "message", "base_resp"]), JSON))
def test_no_event_makes_classify_fall_over(payload: dict[str, Any]) -> None:
    failures.classify_event(ZHIPU, payload).error()


@pytest.mark.parametrize("prefix", [b"\n\n\n", b"data: ", b"\r\n data:", b" "])
def test_padding_and_a_stray_data_prefix_do_not_hide_the_error(prefix: bytes) -> None:
    failure = failures.classify(DEEPSEEK, 400, prefix + deepseek("Content Exists Risk"), None)
    assert failure.kind == "content_filter"


def test_a_body_nested_too_deep_is_no_traceback() -> None:
    assert failures.classify(DEEPSEEK, 400, b"[" * 100_000, None).kind == "malformed"


def test_a_code_in_the_message_counts_where_the_provider_hides_it_there() -> None:
    rules = '[[providers.minimax.errors]]\ncodes = ["1008"]\nkind = "arrears"'
    provider = catalog_of(PACKAGED, rules).providers["minimax"]
    inside = b'{"error":{"message":"insufficient balance (1008)","type":"x"}}'
    assert failures.classify(provider, 500, inside, None).kind == "arrears"
    base = b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}'
    assert failures.classify(provider, 200, base, None).kind == "arrears"


# --- in a stream ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "payload", "kind"),
    [
        (DEEPSEEK, {"error": {"message": "Internal Server Error", "type": "server_error"}}, "server_error"),
        (DEEPSEEK, {"error": {"message": "Content Exists Risk"}}, "content_filter"),
        (DEEPSEEK, {"error": {"message": "Rate limit reached"}}, "rate_limited"),
        (DEEPSEEK, {"error": "boom"}, "server_error"),
        (DEEPSEEK, {"error": None}, "server_error"),
        (ZHIPU, {"error": {"code": "1234", "message": "network error, please retry"}}, "server_error"),
        (ZHIPU, {"error": {"code": "1301", "message": "x"}}, "content_filter"),
        (ZHIPU, {"error": {"code": "1113", "message": "x"}}, "arrears"),
        (ZHIPU, {"error": {"code": "0000", "message": "x"}}, "server_error"),
    ],
)
def test_an_error_event_is_classified_without_a_status(provider: Any, payload: dict[str, Any], kind: str) -> None:
    assert failures.classify_event(provider, payload).kind == kind


# --- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "sk-0123456789abcdef0123456789abcdef",
        "sk-cp-abcDEF123_-x",
        "sk-****abcd",
        "eyJhbGciOiJIUzI1NiJ9.eyJhcGlfa2V5IjoiYSJ9.c2lnbmF0dXJl",
        "0123456789abcdef0123456789abcdef.s3cretS3cretS3cr",
        "vendor-Key0123456789abcdefghijKLMNOP",
    ],
)
def test_a_key_in_a_message_is_starred_out(secret: str) -> None:
    for text in (f"Your api key: {secret} is invalid", f"bad header 'Bearer {secret}'", f"({secret})"):
        failure = failures.classify(DEEPSEEK, 400, deepseek(text), None)
        assert secret not in failure.message
        assert secret not in failure.error().message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Your account org-1a2b<ak-3c4d> sent a bad tool", "Your account ****** sent a bad tool"),
        ("workspace ws-77ab3: no", "workspace ***: no"),
        ("cannot reach http://10.1.2.3:8080/v1/chat?x=1 now", "cannot reach *** now"),
        ("upstream cn-north.maas.aliyuncs.com:443 refused", "upstream *** refused"),
        ("connect to 10.21.3.4:9000 failed", "connect to *** failed"),
        ("request 5a1d2c3b-1111-9222-8333-444455556666 is invalid", "request *** is invalid"),
        ("account 2088123412 is invalid", "account *** is invalid"),
        ("messages.0.content: 3.5 is no text of glm-4.6v", "messages.0.content: 3.5 is no text of glm-4.6v"),
        ("Range of max_tokens should be [1, 65536]", "Range of max_tokens should be [1, 65536]"),
    ],
)
def test_what_names_our_account_or_its_host_is_starred_out(text: str, told: str) -> None:
    assert failures.classify(DEEPSEEK, 400, deepseek(text), None).error().message == told


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503])
def test_words_about_our_account_and_its_host_reach_no_caller(status: int) -> None:
    said = "Your account org-1a2b<ak-3c4d> at gw-7.internal is broken"
    error = failures.classify(MINIMAX, status, deepseek(said), None).error()
    assert not {"org-1a2b", "ak-3c4d", "account", "gw-7"} & set(error.message.replace("<", " ").split())
    assert said[:12] not in error.message


def test_the_rest_of_a_message_stays() -> None:
    assert failures.mask("Your api key: ****alid is invalid") == "Your api key: *** is invalid"
    plain = "This model's maximum context length is 65536 tokens (deepseek-v4-flash-vision-exp)."
    assert failures.mask(plain) == plain


def test_the_state_of_our_account_is_not_the_callers_business() -> None:
    for status, text in ((401, "Authentication Fails"), (402, "Insufficient Balance")):
        assert text not in failures.classify(DEEPSEEK, status, deepseek(text), None).error().message


def test_a_long_message_is_cut() -> None:
    failure = failures.classify(DEEPSEEK, 400, deepseek("no " * 10_000), None)
    assert len(failure.message) == failures.MESSAGE_CHARS_MAX


def test_plain_text_is_a_message_and_html_is_not() -> None:
    assert failures.classify(DEEPSEEK, 422, b"bad top_p", None).error().message == "bad top_p"
    assert "html" not in failures.classify(DEEPSEEK, 413, b"<html>", None).error().message


# --- when to come back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "message", "seconds"),
    [
        (None, "", None),
        ("7", "", 7),
        ("1.5", "", 1.5),
        ("0", "", None),
        ("-3", "", None),
        ("nan", "", None),
        ("inf", "", 86_400),
        ("soon", "", None),
        ("Tue, 24 Nov 2026 02:33:30 GMT", "", 30),
        ("Tue, 24 Nov 2026 02:00:00 GMT", "", None),
        (None, "please try again after 12 seconds", 12),
        (None, "Please retry in 1.5s.", 1.5),
        ("3", "after 12 seconds", 3),
    ],
)
def test_the_wait_comes_from_the_header_or_the_message(header: str | None, message: str, seconds: float | None) -> None:
    failure = failures.classify(DEEPSEEK, 429, deepseek(message), header, now_s=1795487580.0)
    assert failure.retry_after_s == seconds


def test_a_date_without_a_clock_is_no_wait() -> None:
    assert failures.classify(DEEPSEEK, 429, b"", "Tue, 24 Nov 2026 02:33:30 GMT").retry_after_s is None


NOW_S = 1795487580.0  # 2026-11-24T02:33:00Z, half past ten in Beijing


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("please try again after 1 seconds", 1),
        ("retry in 250 ms", 0.25),
        ("Try again in 2 minutes.", 120),
        ("try again after 1h", 3600),
        ("usage limit exceeded, resets at 2026-11-24T03:33:00Z (2056)", 3600),
        ("Your limit will reset at 2026-11-24 11:33:00", 3600),
        ("resets at 2026-11-24T12:03:00+09:00", 1800),
        ("resets at 2026-12-24T00:00:00Z", failures.RESET_S_MAX),
        ("reset at 2026-11-23 11:33:00", None),
        ("reset at 2026-13-45 99:00:00", None),
        ("input is 12 tokens", None),
        ("found in 7 places", None),
    ],
)
def test_a_wait_may_be_a_length_or_a_time(message: str, seconds: float | None) -> None:
    assert failures.classify(DEEPSEEK, 429, deepseek(message), None, now_s=NOW_S).retry_after_s == seconds
    assert failures.classify_event(DEEPSEEK, {"error": {"message": message}}, now_s=NOW_S).retry_after_s == seconds


def test_what_is_used_up_until_tomorrow_comes_back_at_midnight_in_beijing() -> None:
    rule = '[[providers.minimax.errors]]\ncodes = ["9*"]\nkind = "quota_exhausted"\nuntil_tomorrow = true'
    provider = catalog_of(PACKAGED, rule).providers["minimax"]
    body = b'{"base_resp":{"status_code":9123,"status_msg":"daily cap"}}'
    failure = failures.classify(provider, 429, body, None, now_s=NOW_S)
    assert (failure.account_state, failure.retry_after_s) == ("suspended", 13.5 * 3600 - 180)
    assert failures.classify(provider, 429, body, "60", now_s=NOW_S).retry_after_s == 60
    assert failures.classify(provider, 429, body, None).retry_after_s is None


@pytest.mark.parametrize(("code", "kind"), [("InvalidParameter.X", "context_length"), ("Other", "bad_request")])
def test_a_code_of_a_rule_may_end_with_a_star(code: str, kind: str) -> None:
    rule = '[[providers.dashscope.errors]]\ncodes = ["Invalid*"]\nkind = "context_length"'
    provider = catalog_of(PACKAGED, rule).providers["dashscope"]
    body = msgspec.json.encode({"code": code, "message": "x", "request_id": "7d"})
    assert failures.classify(provider, 400, body, None).kind == kind


@pytest.mark.parametrize(("header", "told"), [(None, "5"), ("7", "7"), ("9000", "60")])
def test_a_throttled_caller_is_told_a_wait_that_sdks_honour(header: str | None, told: str) -> None:
    error = failures.classify(DEEPSEEK, 429, b"", header).error()
    assert ("retry-after", told) in error.headers()
