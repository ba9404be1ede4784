"""What one request's tries share, and what each of them leaves to be charged or lost."""

from typing import Final

import msgspec

from vipcloud.dialects.openai import ChatRequest, FinishReason, PlainChat, Usage
from vipcloud.dialects.replies import Reply
from vipcloud.dialects.shapes import Asked
from vipcloud.errors import StructuredOutputFailed
from vipcloud.gateway.bill import Bill, Outcome
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts
from vipcloud.gateway.rescue import Rescue
from vipcloud.gateway.upstreams import AttemptFailed, Pool, Way
from vipcloud.http.client import Response
from vipcloud.ledger.records import Progress, Reached
from vipcloud.limits.guard import Permit
from vipcloud.metering import estimate
from vipcloud.metering.estimate import Texts
from vipcloud.providers import answers, structured, translate
from vipcloud.providers import usage as counts
from vipcloud.providers.answers import Form
from vipcloud.providers.models import Model
from vipcloud.providers.stream import StreamTranslator
from vipcloud.providers.usage import Delivered, TextSize

UNFIT = "The model did not answer in the form that `response_format` asks for, and not when it was asked again either."
NOTHING: Final = counts.of(0, 0)


class Attempt:
    """What an attempt needs to know. `spare`: should it fail, there is another way; all else is the same for all
    attempts of a request.

    `asked` is how the request was read, in the first attempt.

    `form` is what the answer must be. If the first one was not, this is the attempt to have it mended: `unfit` is what
    the first one used, `estimated` whether that was counted here.
    """

    def __init__(
        self,
        call: Call,
        parts: Parts,
        request: ChatRequest,
        model: Model,
        permit: Permit,
        bill: Bill,
        pool: Pool,
        form: Form | None,
        rescue: Rescue | None,
    ) -> None:
        self.call = call
        self.parts = parts
        self.request = request
        self.model = model
        self.permit = permit
        self.bill = bill
        self.pool = pool
        self.form = form
        self.rescue = rescue
        self.spare = False
        self.asked: Asked | None = None
        self.prompt: TextSize | None = None  # measured when it is first needed
        self.unfit: Usage | None = None
        self.estimated = False

    @property
    def total_deadline(self) -> float:
        """In the loop's time."""
        return self.call.exchange.received_s + self.parts.constants.total_s

    @property
    def delivered(self) -> bool:
        """Whether anything of an answer has gone to the caller."""
        return self.bill.first_token_s is not None or (self.rescue is not None and bool(self.rescue.said))

    def note_pace(self, way: Way, asked_s: float, usage: Usage) -> None:
        """How quick a whole stream was, where there is another way to compare it with."""
        first_s = self.bill.first_token_s
        if self.spare and first_s is not None:
            way.pace.note(first_s - asked_s, usage.completion_tokens, self.parts.clock.monotonic_s() - first_s)

    def estimate(self, delivered: Delivered) -> Usage:
        """What was used, counted here."""
        if self.prompt is None:
            self.prompt = estimate.prompt_size(self.request)
        return estimate.usage_of(self.prompt, delivered, self.permit.output_tokens)

    async def settle(
        self, outcome: Outcome, usage: Usage, *, estimated: bool, finish_reason: FinishReason | None = None
    ) -> None:
        """Settle a stream. It may have outrun its slices: then the rest is held for first, if there is credit for it.

        Whoever cancels the wait for that changes nothing but the hold.
        """
        permit, guard = self.permit, self.parts.guard
        try:
            if permit.held_tokens < min(usage.completion_tokens, permit.output_tokens):
                guard.extend(permit, usage.completion_tokens - permit.held_tokens, refused=_nothing)
                await guard.flushed()
        finally:
            self.bill.settle(outcome, usage, estimated=estimated, finish_reason=finish_reason)

    async def count(self, way: Way, said: tuple[str, str, str]) -> Usage:
        """As `estimate`, by the texts that were delivered and a real vocabulary, if that is to be had in time."""
        texts, quirks = Texts(estimate.prompt_text(self.request), *said), way.candidate.quirks
        counts = await self.parts.counter.count(quirks.vocabulary, texts.parts)
        if counts is None:
            counts = estimate.guess(texts, quirks)
        return estimate.usage_of_counts(counts, texts, quirks, self.permit.output_tokens)

    def guess(self, way: Way, said: tuple[str, str, str]) -> Usage:
        """As `count`, without a wait."""
        texts, quirks = Texts(estimate.prompt_text(self.request), *said), way.candidate.quirks
        return estimate.usage_of_counts(estimate.guess(texts, quirks), texts, quirks, self.permit.output_tokens)

    def settle_cut(self, way: Way, translator: StreamTranslator) -> None:
        """The request was cancelled: charge what was delivered of the stream, nothing if nothing was."""
        outcome = self.call.cut_by
        if self.delivers(translator):
            usage = self.guess(way, translator.said)
            self.note_billed(usage, told=False)
            self.bill.settle(outcome, usage, estimated=True)
        else:
            if self.bill.sent:
                self.lose_stream(translator)
            self.bill.settle(outcome)

    def delivers(self, translator: StreamTranslator) -> bool:
        """Whether the caller has got anything of a stream."""
        return translator.started and (self.rescue is None or not self.rescue.buffers)

    def lose(self, usage: Usage | None = None) -> None:
        """Note what the upstream bills for a call of which nothing was delivered: what it counted, or else the input.

        Its error answers are free; so this is for calls that were sent and that none has ended (`Bill.sent`).
        """
        rescue = self.rescue
        if usage is None and rescue is not None and rescue.said:
            usage = rescue.last_call(self.estimate(rescue.delivered))
        self.bill.lose(usage or self.estimate(Delivered(TextSize(), TextSize(), TextSize())))

    def lose_stream(self, translator: StreamTranslator) -> None:
        """As `lose`, of a stream that the caller was shown nothing of, however much of it came."""
        usage = translator.usage
        if usage is None and translator.started and not self.delivers(translator):
            usage = self.estimate(translator.delivered)
        self.lose(usage)

    def note_billed(self, usage: Usage, *, told: bool) -> None:
        """What the last call's provider counts, if it went on from another's text: `usage`, if the provider told it, or
        a part of it that was counted here."""
        rescue = self.rescue
        if rescue is not None and rescue.said:
            self.bill.billed = usage if told else rescue.last_call(usage)

    def broke_off(self, translator: StreamTranslator, usage: Usage | None) -> None:
        """A stream that another try may make up for: note what it costs us, `usage` if that was counted here.

        One that another can go on with is only lost when that is sent (`pass_on`): else the usage row has its cost.
        One that has added nothing is lost at once, whatever was noted while it was open.
        """
        bill, rescue = self.bill, self.rescue
        if translator.started and rescue is not None and not rescue.buffers:
            if rescue.added:
                bill.billed = translator.usage or bill.billed or usage
                bill.sent = False
                return
            if bill.sent:
                self.lose_stream(translator)
            self._pay_no_call(rescue)
        elif bill.sent or translator.started:  # an error after content does not make that free
            self.lose_stream(translator)

    def pass_on(self) -> None:
        """Another call is about to go on with what was said: the last one's cost is a loss from now on."""
        bill, rescue = self.bill, self.rescue
        if rescue is None or not rescue.said or bill.billed is None or bill.billed is NOTHING:
            return
        bill.lose(bill.billed)
        self._pay_no_call(rescue)

    def _pay_no_call(self, rescue: Rescue) -> None:
        """The usage row has no call's cost from now on. The journal hears that at once, should the process die."""
        self.bill.billed = NOTHING
        self.parts.journal.keep(Progress([self.bill.reached(self.estimate(rescue.delivered))]))

    def settle_said(self, outcome: Outcome) -> None:
        """Charge what was delivered of an answer that could not be continued; nothing is done if nothing was."""
        if self.rescue is not None and self.rescue.said:
            self.bill.settle(outcome, self.estimate(self.rescue.delivered), estimated=True)

    def encode(self, way: Way) -> bytes:
        """The upstream's body for this way."""
        request, tokens = self.request, self.permit.output_tokens // (self.request.n or 1)
        if self.rescue is not None and self.rescue.said:
            assert isinstance(request, PlainChat), "no other is continued"
            request = translate.continued(request, way.candidate, self.rescue.said)
            tokens = max(1, tokens - self.rescue.tokens_said)
        return translate.encode_suited(
            request,
            way.candidate,
            max_tokens=tokens,
            attempt_id=f"{self.call.serial}-{self.bill.attempts}" if way.candidate.takes_request_id else "",
            account=self.bill.principal.account.id,
            asked=self.asked,
        )

    def holds_back(self, way: Way) -> bool:
        """Whether the answer has to be seen whole before any of it can be sent."""
        return self.form is not None and structured.plan(self.request, way.candidate).checked

    @property
    def unstreamed(self) -> "Attempt":
        """The same, answered whole by the upstream."""
        other = self._asking(msgspec.structs.replace(self.request, stream=None))
        other.prompt, other.unfit, other.estimated = self.prompt, self.unfit, self.estimated
        return other

    def held_to_form(self, answer: Reply, *, estimated: bool) -> "Attempt | None":
        """Put `answer` into the form that was asked for; if that cannot be, the attempt to have it mended.

        Raises AttemptFailed if it has been mended already. The caller pays for the prompt once, and for the answer that
        is delivered; the rest is lost to us.
        """
        usage, choice = answer.usage, answer.choices[0]
        assert usage is not None, "told or counted"
        problem = ""
        if choice.finish_reason == "stop" and choice.message.content is not None:
            assert self.form is not None, "or there would be nothing to hold it to"
            try:
                choice.message.content = self.form.read(choice.message.content)
            except answers.Unfit as unfit:
                problem = str(unfit)
        first = self.unfit
        if not problem:
            if first is not None:
                self.bill.lose(counts.of(max(0, usage.prompt_tokens - first.prompt_tokens), 0))
                answer.usage = counts.with_prompt_of(first, usage)
            return None
        self.bill.lose(usage)
        if first is not None:
            raise AttemptFailed(StructuredOutputFailed(UNFIT), retryable=False, weight=0)
        self.bill.attempts += 1
        request = answers.again(self.request, choice.message.content or "", problem)
        mending = self._asking(request)
        mending.unfit, mending.estimated = usage, estimated
        return mending

    def _asking(self, request: ChatRequest) -> "Attempt":
        """The same, but for `request`."""
        other = Attempt(
            self.call, self.parts, request, self.model, self.permit, self.bill, self.pool, self.form, self.rescue
        )
        other.spare = self.spare
        return other


class OpenStream:
    """A stream under way, as `ProgressNotes` looks at it a few times a second.

    Of a long answer only a slice is held for at a time: the next one is asked for when half of the last has come. If
    the credit does not cover it, the stream ends where the hold ends, as an answer ends that reaches its `max_tokens`.
    """

    def __init__(self, attempt: Attempt, translator: StreamTranslator, response: Response) -> None:
        self.attempt = attempt
        self.translator = translator
        self.response = response

    @property
    def events(self) -> int:
        return self.translator.data_events

    def reached(self) -> Reached | None:
        """None as long as nothing was delivered."""
        translator, attempt = self.translator, self.attempt
        if not translator.started:
            return None
        usage = attempt.estimate(translator.delivered)
        permit = attempt.permit
        if permit.held_tokens < permit.output_tokens:
            self._hold_on(permit, usage.completion_tokens)
        if not attempt.delivers(translator):
            return None
        attempt.note_billed(usage, told=False)
        return attempt.bill.reached(usage)

    def _hold_on(self, permit: Permit, tokens: int) -> None:
        slice_tokens = permit.ask.slice_tokens
        if tokens + slice_tokens // 2 <= permit.held_tokens:
            return

        def refused() -> None:
            if tokens >= permit.held_tokens and not permit.settled and not self.translator.complete:
                self.translator.cut_short()
                self.response.stop()

        self.attempt.parts.guard.extend(permit, tokens + slice_tokens - permit.held_tokens, refused)


def _nothing() -> None:
    """A refusal shows in the permit, which stays as it was."""
