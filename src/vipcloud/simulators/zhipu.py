"""Zhipu BigModel (and Z.AI, its international twin), simulated: wire shapes, refusals, and what it silently ignores.

Sources: docs.bigmodel.cn (API reference, api-code), docs.z.ai, the SDKs z-ai-sdk-python and zhipuai-sdk-python-v4,
captures in lm15-dev/lm15-contract and pydantic/pydantic-ai; seen 2026-11. Where they leave a refusal's wording open the
text here is ours; its status and its code are theirs.
"""

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vipcloud.simulators import answers, tokens, vendor
from vipcloud.simulators.answers import Answer, Ask
from vipcloud.simulators.script import (
    NOT_JSON,
    Call,
    Refused,
    Reply,
    Shared,
    SimulatorOptions,
    Whole,
    Write,
    decode,
    encode,
    stream,
    unary,
)
from vipcloud.simulators.toolcalls import ToolCall
from vipcloud.simulators.vendor import Request

CONTENT_JSON = (("content-type", "application/json; charset=UTF-8"),)
EVENT_STREAM = (("content-type", "text/event-stream;charset=UTF-8"),)
BEIJING = timedelta(hours=8)
CONCURRENCY_MAX = 1000  # per account and model; the vendor shows its numbers only in its console
TOOLS_MAX = 128
TOOL_TYPES = ("function", "retrieval", "web_search", "mcp")
ROLES = ("system", "user", "assistant", "tool")
IMAGE_BYTES_MAX = 5 << 20
REQUEST_IDS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Model:
    """`thinking` is None where the model cannot; `abroad` models are on the international site too."""

    context_tokens: int
    output_tokens_max: int
    thinking: bool | None = None
    vision: bool = False
    cached: bool = True
    abroad: bool = True


_GLM4 = {"cached": False, "abroad": False}
MODELS: Mapping[str, Model] = {
    "glm-4-plus": Model(128_000, 4_095, **_GLM4),
    "glm-4-air-250414": Model(128_000, 16_384, **_GLM4),
    "glm-4-flash-250414": Model(128_000, 16_384, **_GLM4),
    "glm-4-flashx-250414": Model(128_000, 16_384, **_GLM4),
    "glm-4v-flash": Model(16_384, 1_024, vision=True, **_GLM4),
    "glm-4.5": Model(128_000, 98_304, thinking=True),
    "glm-4.5-air": Model(128_000, 98_304, thinking=True),
    "glm-4.5-airx": Model(128_000, 98_304, thinking=True),
    "glm-4.5-flash": Model(128_000, 98_304, thinking=True),
    "glm-4.6": Model(200_000, 131_072, thinking=True),
    "glm-4.6v": Model(128_000, 32_768, thinking=True, vision=True),
    "glm-4.6v-flash": Model(128_000, 32_768, thinking=True, vision=True),
    "glm-4.6v-flashx": Model(128_000, 32_768, thinking=True, vision=True),
    "glm-4.7": Model(200_000, 131_072, thinking=True),
    "glm-4.7-flash": Model(200_000, 131_072, thinking=True),
    "glm-4.7-flashx": Model(200_000, 131_072, thinking=True),
    "glm-5": Model(200_000, 131_072, thinking=True),
    "glm-5-turbo": Model(200_000, 131_072, thinking=True),
    "glm-5v-turbo": Model(200_000, 131_072, thinking=True, vision=True),
    "glm-5.1": Model(200_000, 131_072, thinking=True),
    "glm-5.2": Model(1_000_000, 131_072, thinking=True),
    "glm-5.3": Model(1_000_000, 131_072, thinking=True),
    "glm-5.3-flash": Model(1_000_000, 131_072, thinking=True, vision=True),
}


class Zhipu:
    """See `script.Vendor`."""

    error_event = b'data: {"error":{"code":"1234","message":"network error, please retry"}}\n\n'

    def __init__(self, options: SimulatorOptions) -> None:
        self.shared = Shared(options)
        self._cache = tokens.PrefixCache()
        self._request_ids: OrderedDict[str, None] = OrderedDict()

    def answer(self, call: Call) -> Reply:
        serial = self.shared.next_id()
        try:
            vendor.forced(call)
            forced(call)
            account = authenticate(call, self.shared.options)
            return self._route(call, account, serial)
        except Refused as refused:
            return refused.reply()

    def _route(self, call: Call, account: str, serial: str) -> Reply:
        prefix = re.match(r"/api/(?:coding/)?paas/v4(?=/)|/v4(?=/)", call.path)
        path = call.path[prefix.end() :] if prefix else call.path
        if account.startswith("plan-") and "/coding/" not in call.path:
            raise error(call, "1315")
        match call.method, path:
            case "POST", "/chat/completions":
                return self._chat(call, account, serial)
            case "POST", "/tokenizer":
                return Reply([Whole(200, CONTENT_JSON, tokenizer(call, serial))])
            case "GET", "/models":
                return Reply([Whole(200, CONTENT_JSON, encode(models(self.shared.options.region)))])
        raise Refused(404, encode({"status": 404, "error": "Not Found", "path": call.path}))

    def _chat(self, call: Call, account: str, serial: str) -> Reply:
        request = call.document
        model = check(call, self.shared.options.region)
        self._check_request_id(call)
        if "broke" in account:
            raise error(call, "1113")
        slot = f"{vendor.account_of(account)}/{request['model']}"
        if vendor.full(self.shared, slot, CONCURRENCY_MAX):
            raise error(call, "1302")
        answer = answers.plan(ask(request, model, self.shared.options.seed))
        if answer.prompt_tokens > model.context_tokens:
            raise error(call, "1261")
        cached = self._cache.hit(account, request.get("tools"), request["messages"]) if model.cached else 0
        writer = Writer(call, answer, min(cached, answer.prompt_tokens), serial, thinking=thinks(request, model))
        if request.get("stream"):
            return Reply(stream(200, EVENT_STREAM, vendor.paced(writer.stream(), answer, self.shared)), slot)
        return Reply(unary(CONTENT_JSON, writer.document(), vendor.unary_delay_s(answer, self.shared)), slot)

    def _check_request_id(self, call: Call) -> None:
        """An id of the client's own works once."""
        request_id = call.document.get("request_id")
        if request_id is None:
            return
        if not isinstance(request_id, str) or len(request_id) < 6:
            raise error(call, "1214", "request_id")
        if request_id in self._request_ids:
            raise error(call, "1231", request_id)
        self._request_ids[request_id] = None
        if len(self._request_ids) > REQUEST_IDS_KEPT:
            self._request_ids.popitem(last=False)


def beijing(wall_s: float) -> str:
    return (datetime.fromtimestamp(wall_s, UTC) + BEIJING).strftime("%Y%m%d%H%M%S")


def tokenizer(call: Call, serial: str) -> bytes:
    request = call.document
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise error(call, "1213", "messages")
    counted = sum(tokens.message_tokens(message) for message in request["messages"] if isinstance(message, dict))
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    return encode({"created": int(call.wall_s), "id": beijing(call.wall_s) + serial[:16], "usage": usage})


def models(region: str) -> dict[str, Any]:
    names = [name for name, model in MODELS.items() if model.abroad or region == "cn"]
    listed = [{"id": name, "object": "model", "created": 1_750_000_000, "owned_by": "z-ai"} for name in names]
    return {"object": "list", "data": listed}


# --- refusals ----------------------------------------------------------------------------------------------------

# code → status, Chinese text, English text; `{0}` is what the refusal is about.
CODES: Mapping[str, tuple[int, str, str]] = {
    "401": (401, "令牌已过期或验证不正确", "token expired or incorrect"),
    "500": (500, "服务器内部错误", "Internal server error"),
    "1000": (401, "身份验证失败。", "Authentication failed"),
    "1001": (401, "Header中未收到Authorization参数，无法进行身份验证。", "Authorization not received in header"),
    "1002": (401, "Authorization Token非法，请确认Authorization Token正确传递。", "Invalid Authorization Token"),
    "1003": (401, "Authorization Token已过期，请重新生成/获取。", "Authorization Token has expired"),
    "1004": (401, "通过提供的Authorization Token验证失败。", "Verification of the Authorization Token failed"),
    "1100": (401, "账户读写", "Account read/write"),
    "1110": (429, "您的账户当前处于非活动状态。", "Your account is inactive."),
    "1111": (429, "您的账户不存在。", "Your account does not exist."),
    "1112": (429, "您的账户已被锁定，请联系客服解锁。", "Your account has been locked."),
    "1113": (429, "您的账户已欠费，请充值后重试。", "Insufficient balance or no resource package. Please recharge."),
    "1120": (429, "无法成功访问您的账户，请稍后重试。", "Your account cannot be accessed, try again later."),
    "1121": (429, "账户存在违规行为，账号已被锁定。", "Your account is locked for violations."),
    "1200": (400, "API 调用失败", "API call failed"),
    "1210": (400, "API 调用参数有误，请检查文档。{0}", "Invalid API parameter, please check the documentation. {0}"),
    "1211": (400, "模型不存在，请检查模型代码。", "Unknown Model, please check the model code."),
    "1212": (400, "当前模型不支持{0}调用方式", "The model does not support the {0} call method"),
    "1213": (400, "未正常接收到{0}参数。", "The {0} parameter was not received properly."),
    "1214": (400, "{0} 参数非法。请检查文档。", "Invalid parameter {0}. Please check the documentation."),
    "1215": (400, "{0}不能同时设置", "{0} cannot be set at the same time"),
    "1220": (434, "您无权访问{0}。", "You do not have permission to access {0}."),
    "1221": (400, "API {0} 已下线", "The API {0} has been taken offline"),
    "1222": (400, "API {0} 不存在", "The API {0} does not exist"),
    "1230": (500, "API 调用流程出错", "API call process error"),
    "1231": (400, "您已有请求：{0}", "You already have a request: {0}"),
    "1234": (500, "网络错误，请联系客服。", "network error, please retry"),
    "1261": (400, "Prompt 超长", "Prompt exceeds max length"),
    "1300": (400, "API 调用被策略阻止", "The API call was blocked by policy"),
    "1301": (
        400,
        "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语，感谢您的配合。",
        "The system detected potentially unsafe or sensitive content in input or generation.",
    ),
    "1302": (429, "您的账户已达到速率限制，请您控制请求频率", "Rate limit reached for requests"),
    "1303": (429, "您当前使用该API的频率过高，请降低频率", "High frequency usage of this API, please slow down"),
    "1304": (429, "该API已达到今日调用次数限额", "Daily call limit for this API reached"),
    "1305": (429, "该模型当前访问量过大，请您稍后再试", "The model is overloaded, please try again later"),
    "1308": (429, "已达到使用上限，将在 2026-11-25 00:00:00 重置。", "Limit reached, resets at 2026-11-25 00:00:00"),
    "1309": (429, "您的套餐已到期", "Your plan has expired"),
    "1310": (429, "已达到每周上限，2026-11-30 00:00:00 重置。", "Weekly limit reached, reset at 2026-11-30 00:00:00"),
    "1311": (429, "当前套餐暂未开放{0}权限", "Your plan does not include access to {0}"),
    "1312": (429, "该模型当前访问量过大，请您稍后再试", "The model is busy, please try again later"),
    "1313": (429, "您的账户受到公平使用政策限制", "Your account is restricted by the fair use policy"),
    "1315": (429, "该密钥仅限编程套餐使用", "This key is limited to the coding plan"),
}  # fmt: skip
_BY_STATUS = {400: "1210", 401: "1000", 404: "1222", 429: "1302", 434: "1220", 500: "500"}


def error(call: Call, code: str, about: str = "") -> Refused:
    """`{"error": {"code", "message"}}`: no type, no param, the code a string. English only for those who ask."""
    status, chinese, english = CODES[code]
    message = english if call.header(b"accept-language").lower().startswith("en") else chinese
    body: dict[str, Any] = {"error": {"code": code, "message": message.replace("{0}", about).rstrip()}}
    if code == "1301":
        body["contentFilter"] = [{"level": 1, "role": "user"}]
    return Refused(status, encode(body))


def forced(call: Call) -> None:
    """Raises Refused if the call asks for a refusal of ours."""
    if code := vendor.forced_code(call, CODES):
        raise error(call, code)
    if status := vendor.forced_status(call):
        raise Refused(status, error(call, _BY_STATUS.get(status, "1234")).body)


# --- authentication ----------------------------------------------------------------------------------------------

_RAW_KEY = re.compile(r"[\w-]+\.[\w-]+", re.ASCII)
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


def authenticate(call: Call, options: SimulatorOptions) -> str:
    """The key's id. Takes `Bearer id.secret`, `Bearer <jwt>` and a bare `<jwt>`. Raises Refused (401)."""
    sent = call.header(b"authorization")
    if not sent:
        raise auth_error(call, options, "1001")
    token = sent[7:].strip() if sent[:7].lower() == "bearer " else sent
    if _JWT.fullmatch(token):
        account = authenticate_jwt(call, token, options)
    elif _RAW_KEY.fullmatch(token):
        account = token.partition(".")[0]
        if (token not in options.keys) if options.keys else "bad" in token:
            raise auth_error(call, options, "1000")
    else:
        raise auth_error(call, options, "1002")
    if vendor.of_other_region(account, options):
        raise auth_error(call, options, "1000")
    return account


def auth_error(call: Call, options: SimulatorOptions, code: str) -> Refused:
    """The international site has one code for all but expiry."""
    return error(call, "401" if options.region == "intl" and code != "1003" else code)


def authenticate_jwt(call: Call, token: str, options: SimulatorOptions) -> str:
    """Checks form, signature (HS256) and `exp`, which is in milliseconds."""
    head_text, payload_text, signature_text = token.split(".")
    head, payload = decode(_unbase64(head_text)), decode(_unbase64(payload_text))
    if not isinstance(head, dict) or not isinstance(payload, dict) or head.get("alg") != "HS256":
        raise auth_error(call, options, "1002")
    account, expires_ms = payload.get("api_key"), payload.get("exp")
    if head.get("sign_type") != "SIGN" or not isinstance(account, str) or not isinstance(expires_ms, int):
        raise auth_error(call, options, "1002")
    secret = secret_of(account, options)
    if secret is None:
        raise auth_error(call, options, "1000")
    signed = hmac.new(secret.encode(), f"{head_text}.{payload_text}".encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(signed, _unbase64(signature_text)):
        raise auth_error(call, options, "1004")
    if expires_ms <= call.wall_s * 1000:
        raise auth_error(call, options, "1003")
    return account


def secret_of(account: str, options: SimulatorOptions) -> str | None:
    """The secret of a configured key; without configured keys, the one secret that all ids share."""
    if not options.keys:
        return None if "bad" in account else options.jwt_secret
    return next((key.partition(".")[2] for key in options.keys if key.partition(".")[0] == account), None)


def _unbase64(text: str) -> bytes:
    """base64url without padding; empty where it is none."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


# --- checks ------------------------------------------------------------------------------------------------------


def check(call: Call, region: str) -> Model:
    """The model asked for. Raises Refused as Zhipu would. `tool_choice`, `user` and much else is not looked at."""
    request = call.document
    if request is NOT_JSON or not isinstance(request, dict):
        raise error(call, "1210")
    for name in ("model", "messages"):
        if not request.get(name):
            raise error(call, "1213", name)
    model = MODELS.get(request["model"]) if isinstance(request["model"], str) else None
    if model is None or (region == "intl" and not model.abroad):
        if region == "intl":
            raise Refused(400, encode({"error": {"code": "1214", "message": "modelCode: does not exist"}}))
        raise error(call, "1211")
    for model_rule in MODEL_RULES:
        model_rule(call, request, model)
    for rule in RULES:
        rule(call, request)
    return model


def check_messages(call: Call, request: Request, model: Model) -> None:
    messages = request["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise error(call, "1214", "messages")
    for message in messages:
        if message.get("role") not in ROLES:
            raise error(call, "1214", "messages.role")
        check_content(call, message, model)
    if all(message["role"] in ("system", "assistant") for message in messages):
        raise error(call, "1214", "messages")


def check_content(call: Call, message: Mapping[str, Any], model: Model) -> None:
    content = message.get("content")
    if isinstance(content, list):
        # Models for text want strings, even where the parts hold only text.
        if not model.vision:
            raise error(call, "1210")
        check_parts(call, content)
    elif content is None or content == "":
        if message["role"] in ("user", "system"):
            raise error(call, "1213", "prompt")
    elif not isinstance(content, str):
        raise error(call, "1214", "messages.content")


def check_parts(call: Call, parts: Sequence[Any]) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url":
            for url in answers.image_urls([part]) or [""]:
                check_image(call, url)
        elif kind not in ("text", "video_url", "file_url"):
            raise error(call, "1214", "messages.content.type")


def check_image(call: Call, url: str) -> None:
    """An address or bare base64; the SDK strips a `data:` prefix before it sends."""
    if url.startswith(("http://", "https://")):
        return
    if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", url) or len(url) * 3 // 4 > IMAGE_BYTES_MAX:
        raise error(call, "1210", "图片输入格式/解析错误")


# Leniently, as the live service: the documents end temperature at 1, but 1.3 was taken.
RANGES = (("temperature", 0, 2), ("top_p", 0.01, 1))


def check_numbers(call: Call, request: Request, model: Model) -> None:
    for name, low, high in RANGES:
        value = request.get(name)
        if value is not None and not (vendor.is_number(value) and low <= value <= high):
            raise error(call, "1214", name)
    most = request.get("max_tokens")
    if most is not None and not (vendor.is_number(most, whole=True) and 1 <= most <= model.output_tokens_max):
        raise error(call, "1214", "max_tokens")
    for name in ("stream", "do_sample", "tool_stream"):
        if request.get(name) is not None and not isinstance(request[name], bool):
            raise error(call, "1214", name)


def check_stop(call: Call, request: Request) -> None:
    """An array with at most one string; a bare string is another type and fails earlier than its value."""
    stop = request.get("stop")
    if stop is None:
        return
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise error(call, "1210", "stop")
    if len(stop) > 1:
        raise error(call, "1214", "stop")


def check_user(call: Call, request: Request) -> None:
    user_id = request.get("user_id")
    if user_id is not None and not (isinstance(user_id, str) and 6 <= len(user_id) <= 128):
        raise error(call, "1214", "user_id")


def check_tools(call: Call, request: Request) -> None:
    tools = request.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list) or len(tools) > TOOLS_MAX:
        raise error(call, "1214", "tools")
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in TOOL_TYPES:
            raise error(call, "1214", "tools.type")
        function = tool.get("function")
        if kind == "function" and not (isinstance(function, dict) and isinstance(function.get("name"), str)):
            raise error(call, "1214", "tools.function")


def check_thinking(call: Call, request: Request, model: Model) -> None:
    thinking = request.get("thinking")
    effort = request.get("reasoning_effort")
    if thinking is not None and (
        not isinstance(thinking, dict) or thinking.get("type", "enabled") not in ("enabled", "disabled")
    ):
        raise error(call, "1210", "thinking")
    if thinking is not None and model.thinking is None:
        # The documents give `thinking` to GLM-4.5 and newer only; whether older models ignore it is not known.
        raise error(call, "1210", "thinking")
    if request["model"] == "glm-5.3":
        if effort is not None and effort not in ("low", "high", "max"):
            raise error(call, "1210", "reasoning_effort")
        if thinking is not None and thinking.get("type") == "disabled":
            raise error(call, "1210", "thinking")


def check_response_format(call: Call, request: Request) -> None:
    """`json_schema` passes and is ignored."""
    wanted = request.get("response_format")
    if wanted is not None and not (
        isinstance(wanted, dict) and wanted.get("type") in ("text", "json_object", "json_schema")
    ):
        raise error(call, "1214", "response_format")


RULES: tuple[Callable[[Call, Request], None], ...] = (check_stop, check_user, check_tools, check_response_format)
MODEL_RULES: tuple[Callable[[Call, Request, Model], None], ...] = (check_messages, check_numbers, check_thinking)


def thinks(request: Request, model: Model) -> bool:
    if not model.thinking:
        return False
    if request["model"] == "glm-5.2" and request.get("reasoning_effort") in ("none", "minimal"):
        return False
    thinking = request.get("thinking") or {}
    return bool(thinking.get("type", "enabled") == "enabled")


# --- answers -----------------------------------------------------------------------------------------------------


def ask(request: Request, model: Model, seed: int) -> Ask:
    """`tool_choice` is not read at all: `none` still calls, `required` may not."""
    kind, _ = vendor.response_format(request)
    return Ask(
        messages=request["messages"],
        tools=vendor.functions(request),
        json=kind in ("json_object", "json_schema"),
        fenced=kind == "json_schema",
        thinking=thinks(request, model),
        stop=vendor.stops(request),
        output_tokens_max=request.get("max_tokens") or model.output_tokens_max,
        seed=seed,
    )


class Writer:
    """One answer in Zhipu's shapes."""

    def __init__(self, call: Call, answer: Answer, cached_tokens: int, serial: str, *, thinking: bool) -> None:
        request = call.document
        self._answer = answer
        self._id = beijing(call.wall_s) + serial[:16]
        self._request_id = request.get("request_id") or self._id
        self._created = int(call.wall_s)
        self._model = request["model"]
        self._serial = serial
        self._thinking = thinking
        self._tool_stream = bool(request.get("tool_stream")) and thinking
        self._ending = vendor.Ending(call, answer)
        self._cached_tokens = cached_tokens

    def usage(self) -> dict[str, Any] | None:
        answer = self._answer
        usage: dict[str, Any] = {
            "completion_tokens": answer.completion_tokens,
            "prompt_tokens": answer.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        }
        if self._thinking:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(answer.reasoning)}
        return self._ending.usage(usage)

    def document(self) -> bytes:
        answer = self._answer
        message: dict[str, Any] = {"content": "".join(answer.text), "role": "assistant"}
        if self._thinking:
            message["reasoning_content"] = "".join(answer.reasoning)
        if answer.calls:
            message["tool_calls"] = [self.tool_call(index, call) for index, call in enumerate(answer.calls)]
        document: dict[str, Any] = {
            "choices": [{"finish_reason": self._ending.finish_reason, "index": 0, "message": message}],
            "created": self._created,
            "id": self._id,
            "model": self._model,
            "object": "chat.completion",
            "request_id": self._request_id,
        }
        if self._ending.finish_reason == "sensitive":
            document["content_filter"] = [{"role": "assistant", "level": 1}]
        if (usage := self.usage()) is not None:
            document["usage"] = usage
        return encode(document)

    def tool_call(self, index: int, call: ToolCall, arguments: str | None = None) -> dict[str, Any]:
        whole = compact("".join(call.arguments)) if arguments is None else arguments
        return {
            "id": f"call_{self._serial[16 + index % 16 : 40 + index % 16]}",
            "index": index,
            "type": "function",
            "function": {"name": call.name, "arguments": whole},
        }

    def stream(self) -> Iterator[Write]:
        head = {"id": self._id, "created": self._created, "object": "chat.completion.chunk", "model": self._model}
        before = b"data: " + encode(head)[:-1] + b',"choices":[{"index":0,'
        after = b"}]}\n\n"
        for name, said in ((b"reasoning_content", self._answer.reasoning), (b"content", self._answer.text)):
            start = before + b'"delta":{"role":"assistant","' + name + b'":'
            end = b"}" + after
            for piece in said:
                yield Write(start + encode(piece) + end, "delta")
        for index, call in enumerate(self._answer.calls):
            for delta in self._tool_deltas(index, call):
                yield Write(before + b'"delta":' + encode({"tool_calls": [delta]}) + after, "delta")
        yield from self._end(before)
        yield Write(b"data: [DONE]\n\n", "done")

    def _tool_deltas(self, index: int, call: ToolCall) -> Iterator[dict[str, Any]]:
        """The whole call at once; with `tool_stream` its arguments in fragments."""
        if not self._tool_stream:
            yield self.tool_call(index, call)
            return
        yield self.tool_call(index, call, arguments="")
        for piece in call.arguments:
            yield {"index": index, "function": {"arguments": piece}}

    def _end(self, before: bytes) -> Iterator[Write]:
        """The only chunk with `finish_reason`; it carries the usage."""
        finish = before + b'"finish_reason":' + encode(self._ending.finish_reason)
        finish += b',"delta":{"role":"assistant","content":""}}]'
        usage = self.usage()
        if usage is None:
            yield Write(finish + b"}\n\n", "finish")
        elif self._ending.usage_trails:
            yield Write(finish + b"}\n\n", "finish")
            choices = before[: before.rindex(b'[{"index"')]
            yield Write(choices + b'[],"usage":' + encode(usage) + b"}\n\n", "usage")
        else:
            yield Write(finish + b',"usage":' + encode(usage) + b"}\n\n", "finish")


def compact(arguments: str) -> str:
    """Arguments without blanks between their parts; left as they are where the output limit has cut them."""
    value = decode(arguments.encode())
    return arguments if value is NOT_JSON else encode(value).decode()
