/* The home page's demo: one prompt to the free model, its answer as it comes. Nothing is kept. */
(function () {
  "use strict";
  var form = document.querySelector("[data-demo]");
  if (!form) return;
  var prompt = form.querySelector("textarea");
  var button = form.querySelector("button");
  var count = form.querySelector("[data-count]");
  var reply = document.querySelector("[data-reply]");
  var left = document.querySelector("[data-left]");
  var running = null;
  reply.textContent = "";
  button.disabled = false;

  function set(name, value) { document.querySelector('[data-m="' + name + '"]').textContent = value; }
  var number = calls.number;
  function measure() { count.textContent = prompt.value.length + " of " + prompt.maxLength + " characters"; }
  prompt.addEventListener("input", measure);
  measure();

  function refused(response, body) {
    var error = (body && body.error) || {};
    var after = parseInt(response.headers.get("retry-after"), 10);
    if (response.status === 429) {
      reply.textContent = "The demo's limit is reached. Nothing was sent. Wait, or join the waitlist for a key of your own.";
      calls.wait(button, after > 0 ? after : 60);
    } else if (response.status === 400 || response.status === 413) {
      reply.textContent = error.message || "The prompt was not accepted. Nothing was sent.";
    } else {
      reply.textContent = "The demo's model does not answer. The paid models are not affected.";
    }
  }

  function remaining(response) {
    var day = response.headers.get("x-ratelimit-remaining-requests-day");
    var limit = response.headers.get("x-ratelimit-limit-requests-day");
    if (day === null || limit === null) return;
    left.textContent = left.dataset.rpm + " requests a minute from your address; " + number(day) + " of " + number(limit) +
      " left today. Nothing of your prompt or the reply is kept.";
  }

  async function send() {
    var began = performance.now(), first = 0, text = document.createTextNode(""), usage = null, failed = null;
    var cursor = document.createElement("span");
    cursor.className = "cursor";
    running = new AbortController();
    reply.setAttribute("aria-busy", "true");
    reply.replaceChildren(text, cursor);
    ["ttft", "speed", "tok", "cost"].forEach(function (name) { set(name, "…"); });
    var response = await fetch("/demo/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: form.dataset.demo, stream: true, messages: [{ role: "user", content: prompt.value }] }),
      signal: running.signal
    });
    remaining(response);
    if (!response.ok) { refused(response, await response.json().catch(function () { return null; })); return; }
    await calls.chunks(response, function (chunk) {
      if (chunk.error) { failed = chunk.error; return; }
      var piece = chunk.choices.length ? chunk.choices[0].delta.content : "";
      if (piece) {
        if (!first) { first = performance.now(); set("ttft", ((first - began) / 1000).toFixed(2) + " s"); }
        text.data += piece;
      }
      if (chunk.usage) usage = chunk.usage;
    });
    if (failed || !usage) {
      text.data += text.data ? " …" : "";
      cursor.replaceWith(" The answer broke off. Nothing was charged: this model is free.");
      return;
    }
    var seconds = (performance.now() - first) / 1000;
    set("speed", seconds > 0.05 ? Math.round(usage.completion_tokens / seconds) + " tok/s" : "at once");
    set("tok", number(usage.prompt_tokens) + " in, " + number(usage.completion_tokens) + " out");
    set("cost", "$0.00");
  }

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    if (!prompt.value.trim() || button.disabled) { prompt.focus(); return; }
    button.disabled = true;
    send().catch(function () {
      reply.textContent = "The demo could not be reached. Nothing was sent.";
    }).finally(function () {
      var cursor = reply.querySelector(".cursor");
      if (cursor) cursor.remove();
      reply.removeAttribute("aria-busy");
      ["ttft", "speed", "tok", "cost"].forEach(function (name) {
        var at = document.querySelector('[data-m="' + name + '"]');
        if (at.textContent === "…") at.textContent = "–";
      });
      if (button.textContent === "Send") button.disabled = false;
    });
  });
})();
