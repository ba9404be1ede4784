/* What the demo and the playground share: reading a stream of chunks, and waiting until a limit is free again. */
var calls = (function () {
  "use strict";

  /* Give each chunk of a streamed answer to `take`. Whether it ended as a whole answer does. */
  async function chunks(response, take) {
    var reader = response.body.pipeThrough(new TextDecoderStream()).getReader(), held = "", whole = false;
    for (;;) {
      var part = await reader.read();
      if (part.done) return whole;
      var events = (held + part.value).split("\n\n");
      held = events.pop();
      for (var event of events) {
        if (event === "data: [DONE]") whole = true;
        else if (event.startsWith("data: ")) take(JSON.parse(event.slice(6)));
      }
    }
  }

  /* Keep a button from being used for so many seconds, and have it say so. */
  function wait(button, seconds) {
    var label = button.textContent;
    button.disabled = true;
    (function tick() {
      if (seconds <= 0) { button.disabled = false; button.textContent = label; return; }
      button.textContent = "Free again in " + (seconds > 90 ? Math.ceil(seconds / 60) + " min" : seconds + " s");
      seconds -= 1;
      setTimeout(tick, 1000);
    })();
  }

  function number(value) { return Number(value).toLocaleString("en"); }

  return { chunks: chunks, wait: wait, number: number };
})();
