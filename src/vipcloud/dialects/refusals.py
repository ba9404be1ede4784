"""Why a chat request was refused, in OpenAI's words. Runs only after a violation; never on the way of a good request.

Theory of operation. The typed decoder of `requests` says *that* a body breaks the contract; its text is not what a
caller of OpenAI expects, and it knows no keys inside dictionaries. So the body is read once more without types, and
`_violation` walks the plain value beside the declared types (`msgspec.inspect`) until the first thing that does not
fit, in the order in which OpenAI checks fields. What the walk cannot find (a number beyond any range) is told from the
decoder's own text.

A large body is not walked, which would keep everyone waiting for seconds. Its fields are decoded one by one instead,
in the same order and in C, and the first that fails says where; only what stands there is read and walked. That costs
about what decoding the body does. Inside a field it finds what is wrong first as it is written.

The first half of the module is the vocabulary: one function per sentence, used by `requests.check` too. `param` is
always the path of the field; values and names of the caller are shortened, so that a megabyte does not come back.

Sentences: measured on api.openai.com by third parties, 2026-08-29 and 30. Quoted in public issue threads (read
2026-11-24): the patterns, the URL, the word 'json', `In context=` (vercel/ai#6484, dottxt-ai/outlines#844), 'functions'
(Azure-Samples/azure-search-openai-demo#1175), tool messages (run-llama/llama_index#10493). Ours, by analogy: choices
that name nothing, nesting, the root of a schema. All have the code `bad_request` here.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_type_hints

import msgspec
from msgspec import inspect

from vipcloud.dialects import openai
from vipcloud.errors import BadRequest, shorten

WALKED_BYTES_MAX = 65_536  # of JSON that is read into plain values and walked
DETAIL_LENGTH_MAX = 512  # characters of a list of ids or a context inside a sentence

# --- the sentences ---------------------------------------------------------------------------------------------


def missing(param: str) -> BadRequest:
    return _refused(f"Missing required parameter: '{shorten(param)}'.", param)


def missing_model() -> BadRequest:
    return BadRequest("you must provide a model parameter", param="model")


def unknown(param: str) -> BadRequest:
    return _refused(f"Unknown parameter: '{shorten(param)}'.", param)


def wrong_type(param: str, expected: str, value: object) -> BadRequest:
    """`expected` with its article: "a string", "one of 'auto' or 'none'"."""
    return _refused(f"Invalid type for '{shorten(param)}': expected {expected}, but got {_noun(value)} instead.", param)


def wrong_value(param: str, value: str, supported: Iterable[str]) -> BadRequest:
    listed = _listing([f"'{word}'" for word in _ranked(supported)], "and")
    return _refused(f"Invalid value: '{shorten(value)}'. Supported values are: {listed}.", param)


def number_below(param: str, bound: float, value: object, kind: str = "integer") -> BadRequest:
    """`kind` is what the field wants, "integer" or "decimal"."""
    return _limit(param, f"{kind} below minimum value", f"a value >= {bound}", shorten(str(value)))


def number_above(param: str, bound: float, value: object, kind: str = "integer") -> BadRequest:
    return _limit(param, f"{kind} above maximum value", f"a value <= {bound}", shorten(str(value)))


def array_too_short(param: str, length_min: int, length: int) -> BadRequest:
    name, got = (
        ("empty array", "an empty array") if length == 0 else ("array too short", f"an array with length {length}")
    )
    return _limit(param, name, f"an array with minimum length {length_min}", got)


def array_too_long(param: str, length_max: int, length: int) -> BadRequest:
    return _limit(
        param, "array too long", f"an array with maximum length {length_max}", f"an array with length {length}"
    )


def string_too_short(param: str, length_min: int, length: int) -> BadRequest:
    name, got = (
        ("empty string", "an empty string") if length == 0 else ("string too short", f"a string with length {length}")
    )
    return _limit(param, name, f"a string with minimum length {length_min}", got)


def string_too_long(param: str, length_max: int, length: int) -> BadRequest:
    return _limit(
        param, "string too long", f"a string with maximum length {length_max}", f"a string with length {length}"
    )


def string_off_pattern(param: str, pattern: str) -> BadRequest:
    expected = f"Expected a string that matches the pattern '{pattern}'."
    return _refused(f"Invalid '{shorten(param)}': string does not match pattern. {expected}", param)


def not_a_url(param: str) -> BadRequest:
    return _refused(f"Invalid '{param}'. Expected a valid URL, but got a value with an invalid format.", param)


def too_many_properties(param: str, count_max: int, count: int) -> BadRequest:
    expected = f"an object with at most {count_max} properties"
    return _limit(param, "too many properties", expected, f"an object with {count} properties")


def property_name_too_long(param: str, name: str, length_max: int) -> BadRequest:
    """The sentence shortens the name to its ends; `param` carries it whole as long as it is of sane length."""
    return _refused(
        f"Invalid property name in '{param}': '{name[:3]}...{name[-3:]}' is too long. "
        f"Expected a string with maximum length {length_max}, but got a string with length {len(name)} instead.",
        f"{param}.{name}",
    )


def too_deep(param: str, levels_max: int) -> BadRequest:
    return _refused(f"Invalid '{param}': nested too deeply. Expected at most {levels_max} levels of nesting.", param)


def body_too_deep() -> BadRequest:
    return BadRequest("The JSON body of your request is nested too deeply.")


def only_with(param: str, other: str) -> BadRequest:
    """For an option that is nothing without a switch: `stream_options` without `stream`."""
    return _refused(f"The '{param}' parameter is only allowed when '{other}' is enabled.", param)


def only_when_specified(param: str, other: str) -> BadRequest:
    """For a choice among things that are not there: `tool_choice` without `tools`."""
    message = f"Invalid value for '{param}': '{param}' is only allowed when '{other}' are specified."
    return _refused(message, param)


def not_together(param: str, other: str) -> BadRequest:
    return _refused(f"Invalid value for '{param}': '{param}' is not allowed together with '{other}'.", param)


def not_among(param: str, kind: str, name: str, among: str) -> BadRequest:
    """A choice that names nothing: `kind` is "function" or "custom tool", `among` the parameter that defines them."""
    message = (
        f"Invalid value for '{param}': no {kind} named '{shorten(name)}' was specified in the '{among}' parameter."
    )
    return _refused(message, param)


def not_alone(param: str, kind: str) -> BadRequest:
    return _refused(f"Invalid '{param}': a part of type '{kind}' must be the only one.", param)


def orphan_answer(param: str) -> BadRequest:
    # "preceeding" is OpenAI's spelling, and programs compare the sentence.
    what = "must be a response to a preceeding message with 'tool_calls'"
    return _refused(f"Invalid parameter: messages with role 'tool' {what}.", param)


def unanswered_calls(param: str, ids: Iterable[str]) -> BadRequest:
    listed = shorten(", ".join(ids), DETAIL_LENGTH_MAX)
    return _refused(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {listed}",
        param,
    )


def json_not_mentioned() -> BadRequest:
    how = "in some form, to use 'response_format' of type 'json_object'"
    return _refused(f"'messages' must contain the word 'json' {how}.", "messages")


def schema_root(param: str, owner: str, kind: str | None) -> BadRequest:
    """`owner` is "function 'f'" or "response_format 'x'"; `kind` what the root says it is."""
    what = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{shorten(str(kind))}\"'"
    return _refused(f"Invalid schema for {owner}: {what}.", param)


def schema_fault(param: str, owner: str, context: tuple[str, ...], what: str, absent: str | None = None) -> BadRequest:
    """A rule of strict schemas, broken at `context` (the keys that lead there); `absent` names a forgotten property."""
    where = f"In context={shorten(repr(context), DETAIL_LENGTH_MAX)}, {what}."
    also = "" if absent is None else f" Missing '{shorten(absent)}'."
    return _refused(f"Invalid schema for {owner}: {where}{also}", param)


def too_many_values(values_max: int) -> BadRequest:
    return BadRequest(
        f"The JSON body of your request holds too much. Expected at most {values_max} values, and at most {values_max} "
        "strings with the names of fields. Send fewer messages, or longer ones."
    )


def not_json(hint: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request. (HINT: {shorten(hint)}.)")


def _refused(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=shorten(param))


def _limit(param: str, what: str, expected: str, got: str) -> BadRequest:
    return _refused(f"Invalid '{shorten(param)}': {what}. Expected {expected}, but got {got} instead.", param)


# --- words -----------------------------------------------------------------------------------------------------

# msgspec sorts the members of an enumeration by letters; callers get them in OpenAI's order. `any` is understood but
# not advertised: it is another dialect's word for `required`.
_RANK = (
    *("system", "assistant", "user", "function", "tool", "developer", "custom", "allowed_tools"),
    *("none", "auto", "required", "default", "flex", "scale", "priority", "fast"),
    *("minimal", "low", "medium", "high", "xhigh", "max", "original"),
    *("text", "image_url", "input_audio", "audio", "file", "refusal", "json_object", "json_schema"),
    *("wav", "aac", "mp3", "flac", "opus", "pcm16", "in_memory", "24h", "content"),
)
_RANK_OF = {word: rank for rank, word in enumerate(_RANK)}
_UNADVERTISED = frozenset({"any"})


@dataclass(frozen=True, slots=True)
class _Decimal:
    """A number with a point or an exponent, as the caller wrote it: nothing is out of range here."""

    text: str

    def __float__(self) -> float:
        return float(self.text)

    def __str__(self) -> str:
        return self.text


def _ranked(words: Iterable[str]) -> list[str]:
    return sorted(set(words) - _UNADVERTISED, key=lambda word: (_RANK_OF.get(word, len(_RANK)), word))


def _listing(words: Sequence[str], conjunction: str) -> str:
    """'a' — 'a' and 'b' — 'a', 'b', and 'c'."""
    if len(words) < 3:
        return f" {conjunction} ".join(words)
    return f"{', '.join(words[:-1])}, {conjunction} {words[-1]}"


def _noun(value: object) -> str:
    """A JSON value's kind, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
    return "a decimal number"


def _expected(alternatives: Iterable[inspect.Type]) -> str:
    """The declared alternatives as one phrase: "a string", "one of a string or array of objects"."""
    phrases: list[str] = []
    for alternative in alternatives:
        if isinstance(alternative, inspect.LiteralType):
            phrases += [f"'{word}'" for word in _ranked(str(value) for value in alternative.values)]
        elif not isinstance(alternative, inspect.NoneType):
            phrases.append(_phrase(alternative))
    phrases = list(dict.fromkeys(phrases))
    if len(phrases) == 1:
        return phrases[0]
    return "one of " + _listing([phrases[0], *(phrase.removeprefix("an ") for phrase in phrases[1:])], "or")


def _phrase(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            return "a boolean"
        case inspect.IntType():
            return "an integer"
        case inspect.FloatType():
            return "a decimal"
        case inspect.StrType():
            return "a string"
        case inspect.ListType():
            items = kind.item_type.types if isinstance(kind.item_type, inspect.UnionType) else (kind.item_type,)
            objects = all(isinstance(item, inspect.StructType | inspect.DictType) for item in items)
            return "an array of objects" if objects else "an array of strings"
    return "an object"


# --- the first violation ---------------------------------------------------------------------------------------

# The order in which OpenAI checks the fields of the body; the rest follow in the order they are declared.
_ORDER = (
    *("model", "messages", "functions", "function_call", "tools", "tool_choice", "parallel_tool_calls"),
    *("max_completion_tokens", "n", "temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs"),
    *("top_logprobs", "user", "seed", "moderation", "safety_identifier", "prompt_cache_options", "prompt_cache_key"),
    *("prompt_cache_retention", "response_format", "service_tier", "max_tokens", "reasoning_effort", "logit_bias"),
    *("stop", "stream", "stream_options", "store", "metadata", "prediction", "verbosity"),
)
_PARAMETERS = frozenset(field.encode_name for field in msgspec.structs.fields(openai.ChatRequest))

_read_plainly = msgspec.json.Decoder(float_hook=_Decimal).decode
_read_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_raw = msgspec.json.Decoder(msgspec.Raw).decode

FITTING = object()  # stands for a value that is as it should be
_NOTHING = msgspec.Raw(b"null")
_STEP = re.compile(r"\[(\d+)\]|\.(\w+)|\[\.\.\.\]")  # of the decoder's path: `[7].role`, and `[...]` for any name


def unknown_parameter(body: bytes) -> BadRequest | None:
    """The first top-level key that the contract does not know, in a body that the typed decoder took.

    Raises msgspec.DecodeError or UnicodeDecodeError for a key that is not text; the typed decoder never looked at it.
    """
    return _first_unknown(_read_keys(body))


def explain(body: bytes, fault: Exception, *, strict_parameters: bool) -> BadRequest | None:
    """What to tell the sender of `body`, which the typed decoder refused with `fault`.

    None where the last value of each field is as it should be, and one before it was not.
    """
    try:
        if len(body) > WALKED_BYTES_MAX:
            return _explain_large(body, fault, strict_parameters=strict_parameters)
        value = _read_plainly(body)
    except RecursionError:
        return body_too_deep()
    except msgspec.ValidationError:  # an integer of thousands of digits, which has no plain value either
        return from_text(str(fault))
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        return not_json(_hint(body, broken))
    if not isinstance(value, dict):
        return not_json(f"it must be one JSON object, but {_noun(value)} was sent")
    if refused := _absent_or_unknown(value, strict_parameters=strict_parameters):
        return refused
    return _violation(_contract(), value, "") or _beyond_words(str(fault))


def _absent_or_unknown(value: dict[str, object], *, strict_parameters: bool) -> BadRequest | None:
    """What is told before any field is looked into."""
    if value.get("model") in (None, ""):
        [listed] = (field.type for field in _contract().fields if field.encode_name == "models")
        return _violation(listed, value.get("models"), "models") or missing_model()
    if "messages" not in value:
        return missing("messages")
    return _first_unknown(value) if strict_parameters else None


def _explain_large(body: bytes, fault: Exception, *, strict_parameters: bool) -> BadRequest | None:
    """As `explain`, without a plain value of the whole. Raises what reading one does."""
    if not isinstance(fault, msgspec.ValidationError):
        return not_json(_hint(body, fault))
    if body.lstrip()[:1] != b"{":
        return not_json(f"it must be one JSON object, but {_noun(_outline(_read_raw(body)))} was sent")
    fields = _read_keys(body)
    known: dict[str, object] = dict.fromkeys(fields, FITTING)
    known |= {name: _read_plainly(fields[name]) for name in ("model", "models") if name in fields}
    if refused := _absent_or_unknown(known, strict_parameters=strict_parameters):
        return refused
    for field in _ordered(_contract(), ""):
        name = field.encode_name
        try:
            if name in fields:
                _field_decoder(name)(fields[name])
        except msgspec.ValidationError as faulty:
            return _violation_at(field.type, fields[name], name, str(faulty)) or _beyond_words(str(fault))
    return _beyond_words(str(fault))


def explain_small(kind: type[msgspec.Struct], body: bytes, fault: Exception) -> BadRequest:
    """The same for another route's body, refused as `kind`, a struct that takes no unknown fields."""
    if len(body) > WALKED_BYTES_MAX:
        return not_json(
            f"it holds {len(body)} bytes, of which at most {WALKED_BYTES_MAX} are looked at to say what is wrong"
        )
    try:
        value = _read_plainly(body)
    except RecursionError:
        return body_too_deep()
    except msgspec.ValidationError:
        return from_text(str(fault))
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        return not_json(_hint(body, broken))
    if not isinstance(value, dict):
        return not_json(f"it must be one JSON object, but {_noun(value)} was sent")
    return _violation(inspect.type_info(kind), value, "") or from_text(str(fault))


def _first_unknown(keys: Iterable[str]) -> BadRequest | None:
    return next((unknown(key) for key in keys if key not in _PARAMETERS), None)


def _hint(body: bytes, broken: Exception) -> str:
    if not body.strip():
        return "the body is empty"
    if body.startswith(b"\xef\xbb\xbf"):
        return "the body must not begin with a byte order mark"
    if isinstance(broken, UnicodeDecodeError):
        return "a string is not valid UTF-8"
    detail = str(broken)
    return f"{detail[:1].lower()}{detail[1:]}" if detail.startswith("Input") else detail


def from_text(text: str) -> BadRequest:
    """The decoder's own sentence, for what has no plain value or is contradicted by a later copy of its key."""
    param = _param(text)
    if not param:
        return not_json(text)
    if "out of range" in text:
        return _refused(f"Invalid '{param}': number out of range.", param)
    return _refused(f"Invalid '{param}': the key is given more than once, with contradicting values.", param)


def _beyond_words(text: str) -> BadRequest | None:
    """What the walk does not find, but the decoder does. None for a field that a later copy of its key mends."""
    return from_text(text) if "out of range" in text or not _param(text) else None


def _param(text: str) -> str:
    return text.rpartition(" - at `$")[2].rstrip("`").partition("[...]")[0].lstrip(".")


@functools.cache
def _contract() -> inspect.StructType:
    contract = inspect.type_info(openai.ChatRequest)
    assert isinstance(contract, inspect.StructType), "a request is a struct"
    return contract


@functools.cache
def _field_decoder(name: str) -> Callable[[msgspec.Raw], object]:
    return msgspec.json.Decoder(get_type_hints(openai.ChatRequest, include_extras=True)[name]).decode


def _violation(declared: inspect.Type, value: object, path: str) -> BadRequest | None:
    """The first thing in `value` that `declared` does not allow; None if there is none."""
    if value is FITTING or isinstance(declared, inspect.AnyType):
        return None
    alternatives = _alternatives(declared)
    fitting = [alternative for alternative in alternatives if _fits(alternative, value)]
    if not fitting:
        return wrong_type(path, _expected(alternatives), value)
    match value:
        case dict():
            return _violation_in_object(fitting, value, path)
        case list():
            return _violation_in_array(fitting[0], value, path)
        case str():
            return _violation_in_string(fitting[0], value, path)
        case int() | _Decimal() if not isinstance(value, bool):
            return _violation_in_number(fitting[0], value, path)
    return None


def _alternatives(declared: inspect.Type) -> list[inspect.Type]:
    """What may stand in a place, without what only a document of the contract says of it."""
    if isinstance(declared, inspect.Metadata):
        return _alternatives(declared.type)
    if isinstance(declared, inspect.UnionType):
        return [found for each in declared.types for found in _alternatives(each)]
    return [declared]


def _fits(declared: inspect.Type, value: object) -> bool:
    """Is `value` of the declared JSON kind? What is inside it is not looked at."""
    match value:
        case None:
            return isinstance(declared, inspect.NoneType)
        case bool():
            return isinstance(declared, inspect.BoolType)
        case int():
            return isinstance(declared, inspect.IntType | inspect.FloatType)
        case str():
            return isinstance(declared, inspect.StrType | inspect.LiteralType)
        case list():
            return isinstance(declared, inspect.ListType)
        case dict():
            return isinstance(declared, inspect.StructType | inspect.DictType)
    return isinstance(declared, inspect.FloatType)


def _violation_in_object(alternatives: list[inspect.Type], value: dict[str, object], path: str) -> BadRequest | None:
    declared = alternatives[0]
    if isinstance(declared, inspect.DictType):
        return _first(_violation(declared.value_type, item, _join(path, key)) for key, item in value.items())
    structs = [alternative for alternative in alternatives if isinstance(alternative, inspect.StructType)]
    if structs[0].tag_field is None:
        return _violation_in_struct(structs[0], value, path)
    by_tag = {str(struct.tag): struct for struct in structs}
    tag = value.get(structs[0].tag_field)
    if isinstance(tag, str) and tag in by_tag:
        return _violation_in_struct(by_tag[tag], value, path)
    if path == "tool_choice" and "function" not in value:
        return missing("tool_choice.function")  # this before any word about `type`, as measured on OpenAI
    tag_path = _join(path, structs[0].tag_field)
    if structs[0].tag_field not in value:
        return missing(tag_path)
    if isinstance(tag, str):
        return wrong_value(tag_path, tag, by_tag)
    return wrong_type(tag_path, _expected([inspect.LiteralType(tuple(by_tag))]), tag)


def _violation_at(declared: inspect.Type, raw: msgspec.Raw, path: str, fault: str) -> BadRequest | None:
    """What is wrong in `raw`, from where the decoder's words for it say that it is."""
    for place, name in _STEP.findall(fault.rpartition(" - at `$")[2]):
        if len(raw) <= WALKED_BYTES_MAX:
            break
        fitting = [each for each in _alternatives(declared) if _fits(each, [] if place else {})]
        if place:
            assert isinstance(fitting[0], inspect.ListType), "only lists fit an array"
            declared, raw, path = fitting[0].item_type, _read_items(raw)[int(place)], f"{path}[{place}]"
            continue
        if isinstance(fitting[0], inspect.DictType):
            return _violation_in_named(fitting[0], _read_plainly(raw), path)
        fields = _read_keys(raw)
        found = next((each for each in _tagged(fitting, fields) if each.encode_name == name), None)
        if found is None or name not in fields:  # what is wrong is the tag, or a copy of the key that does not count
            break
        declared, raw, path = found.type, fields[name], _join(path, name)
    return _violation(declared, _outline(raw), path)


def _tagged(structs: Iterable[inspect.Type], fields: dict[str, msgspec.Raw]) -> Sequence[inspect.Field]:
    """The fields of the struct whose tag is among `fields`."""
    for struct in structs:
        assert isinstance(struct, inspect.StructType), "no other object is there beside structs"
        if struct.tag_field is None or _outline(fields.get(struct.tag_field, _NOTHING)) == struct.tag:
            return struct.fields
    return ()


def _violation_in_named(declared: inspect.DictType, value: dict[str, object], path: str) -> BadRequest | None:
    """As `_violation`, for values by thousands: all that fit are passed over quickly."""
    within = declared.value_type
    for name, item in value.items():
        if isinstance(within, inspect.StrType):
            fits = type(item) is str
        elif isinstance(within, inspect.IntType) and type(item) is int:
            fits = (within.ge is None or item >= within.ge) and (within.le is None or item <= within.le)
        else:
            fits = False
        if not fits and (refused := _violation(within, item, _join(path, name))):
            return refused
    return None


def _outline(raw: msgspec.Raw) -> object:
    """The plain value of a small `raw`; of a large array or object, what it is and which fields it has.

    What is inside them is `FITTING`, but for what tells structs apart.
    """
    start = bytes(memoryview(raw)[:1])
    if len(raw) <= WALKED_BYTES_MAX or start not in (b"[", b"{"):
        return _read_plainly(raw)
    if start == b"[":
        return [FITTING] * len(_read_items(raw))
    fields = _read_keys(raw)
    outline: dict[str, object] = dict.fromkeys(fields, FITTING)
    outline |= {name: _outline(fields[name]) for name in ("type", "role") if name in fields}
    return outline


def _first(found: Iterable[BadRequest | None]) -> BadRequest | None:
    return next((refused for refused in found if refused), None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _violation_in_struct(struct: inspect.StructType, value: dict[str, object], path: str) -> BadRequest | None:
    if struct.forbid_unknown_fields:
        names = {field.encode_name for field in struct.fields}
        for name in value:
            if name not in names:
                return unknown(_join(path, name))
    for field in _ordered(struct, path):
        name = field.encode_name
        if name in value:
            if refused := _violation(field.type, value[name], _join(path, name)):
                return refused
        elif field.required:
            return missing(_join(path, name))
    return None


def _ordered(struct: inspect.StructType, path: str) -> Iterable[inspect.Field]:
    if path:
        return struct.fields
    fields = {field.encode_name: field for field in struct.fields}
    return [fields[name] for name in dict.fromkeys((*_ORDER, *fields)) if name in fields]


def _violation_in_array(declared: inspect.Type, value: list[object], path: str) -> BadRequest | None:
    assert isinstance(declared, inspect.ListType), "only lists fit an array"
    if declared.min_length is not None and len(value) < declared.min_length:
        return array_too_short(path, declared.min_length, len(value))
    if declared.max_length is not None and len(value) > declared.max_length:
        return array_too_long(path, declared.max_length, len(value))
    return _first(_violation(declared.item_type, item, f"{path}[{index}]") for index, item in enumerate(value))


def _violation_in_string(declared: inspect.Type, value: str, path: str) -> BadRequest | None:
    if isinstance(declared, inspect.LiteralType):
        words = [str(word) for word in declared.values]
        return None if value in words else wrong_value(path, value, words)
    assert isinstance(declared, inspect.StrType), "only strings and enumerations fit a string"
    if declared.min_length is not None and len(value) < declared.min_length:
        return string_too_short(path, declared.min_length, len(value))
    if declared.max_length is not None and len(value) > declared.max_length:
        return string_too_long(path, declared.max_length, len(value))
    if declared.pattern is not None and not re.search(declared.pattern, value):
        return string_off_pattern(path, declared.pattern)
    return None


def _violation_in_number(declared: inspect.Type, value: int | _Decimal, path: str) -> BadRequest | None:
    assert isinstance(declared, inspect.IntType | inspect.FloatType), "only numbers fit a number"
    kind = "integer" if isinstance(declared, inspect.IntType) else "decimal"
    number = float(value) if isinstance(value, _Decimal) else value
    if declared.ge is not None and number < declared.ge:
        return number_below(path, declared.ge, value, kind)
    if declared.le is not None and number > declared.le:
        return number_above(path, declared.le, value, kind)
    return None
