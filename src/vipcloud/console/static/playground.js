/* The playground. The conversation is what stands in the page: it is read from there for each request, so that any turn
   can be changed and sent again, and the code below is the request as it would go out now.

   A round is what the person said and, by column, one model's legs: an answer, and after the calls in it were answered
   by hand, the next one. */
(function () {
  "use strict";
  var form = document.querySelector("[data-play]");
  if (!form) return;
  var turns = form.querySelector("[data-turns]"), next = document.getElementById("p-next");
  var send = form.querySelector("[data-send]"), over = form.querySelector("[data-over]");
  var problem = form.querySelector("[data-problem]"), most = form.querySelector("[data-most]");
  var status = form.querySelector("[data-status]"), files = document.getElementById("p-files");
  var selects = Array.from(form.querySelectorAll("[data-model]"));
  var codeModel = document.querySelector("[data-code-model]");
  var rounds = [], pictures = [], running = null, drawing = false;

  function el(id) { return document.getElementById(id); }
  function copy(id) { return el(id).content.firstElementChild.cloneNode(true); }
  function part(box, name) { return box.querySelector("[" + name + "]"); }
  function made(tag, text, name) {
    var node = document.createElement(tag);
    node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  /* ---- what is chosen */
  function columns() {
    return selects.map(function (select, column) {
      return select.value ? { column: column, model: select.value, facts: select.selectedOptions[0].dataset } : null;
    }).filter(Boolean);
  }

  function numberOf(id) {
    var field = el(id), text = field.value.replace(/[,\s]/g, "");
    field.setCustomValidity(text === "" || isFinite(text) ? "" : "A number, such as 0.7.");
    return text === "" || !isFinite(text) ? undefined : Number(text);
  }

  function jsonOf(id) {
    try {
      el(id).setCustomValidity("");
      return JSON.parse(el(id).value);
    } catch (error) {
      el(id).setCustomValidity("This is not JSON: " + error.message);
      return undefined;
    }
  }

  function parameters() {
    var shape = el("p-form").value, found = {
      temperature: numberOf("p-temp"),
      top_p: numberOf("p-top"),
      max_tokens: numberOf("p-max"),
      reasoning_effort: el("p-effort").value || undefined,
      response_format: shape ? { type: shape } : undefined,
      tools: el("p-tools-on").checked ? jsonOf("p-tools") : undefined,
      stream: el("p-stream").checked || undefined
    };
    if (shape === "json_schema") found.response_format.json_schema = jsonOf("p-schema");
    ["p-schema", "p-tools"].forEach(function (id) { if (el(id).closest("[hidden]")) el(id).setCustomValidity(""); });
    return found;
  }

  /* ---- the request, from what stands in the page */
  function said(text, images) {
    if (!images.length) return { role: "user", content: text };
    var parts = images.map(function (image) { return { type: "image_url", image_url: { url: image.url } }; });
    return { role: "user", content: [{ type: "text", text: text }].concat(parts) };
  }

  function answered(leg) {
    var message = { role: "assistant", content: leg.text.textContent || null };
    if (!leg.calls.length) return [message];
    message.tool_calls = leg.calls.map(function (call) { return call.sent; });
    return [message].concat(leg.calls.map(function (call) {
      return { role: "tool", tool_call_id: call.sent.id, content: call.field.value };
    }));
  }

  /* A model that joins later reads the first column that has an answer. */
  function legsOf(round, column) {
    var own = round.legs[column];
    if (own && own.length) return own;
    return round.legs.find(function (legs) { return legs && legs.length; }) || [];
  }

  function messages(column, count, draft) {
    var list = [], system = el("p-system").value.trim();
    if (system) list.push({ role: "system", content: system });
    rounds.slice(0, count).forEach(function (round, index) {
      list.push(said(round.field.value, round.images));
      if (index < count - 1 || draft) legsOf(round, column).forEach(function (leg) { list.push.apply(list, answered(leg)); });
    });
    if (draft) list.push(said(next.value, pictures));
    return list;
  }

  function request(model, list) { return Object.assign({ model: model, messages: list }, parameters()); }

  function draft(choice) {
    var asks = next.value.trim() !== "" || !rounds.length;
    return request(choice.model, messages(choice.column, rounds.length, asks));
  }

  /* ---- money: the guard's own bound, and what an answer cost. Billionths of a dollar, as integers. */
  function money(nano) {
    var digits = (nano % 1000000000n).toString().padStart(9, "0"), node = document.createElement("data");
    node.className = "usd";
    node.value = nano / 1000000000n + "." + digits;
    node.append("$" + (nano / 1000000000n).toLocaleString("en") + "." + digits.slice(0, 6), made("span", digits.slice(6), "usd-tail"));
    return node;
  }

  function roundedUp(tokens, price) { return (BigInt(tokens) * BigInt(price) + 999n) / 1000n; }

  function bound(choice, body) {
    var facts = choice.facts, ask = body.max_tokens >= 1 ? Math.floor(body.max_tokens) : Infinity;
    var bytes = new TextEncoder().encode(JSON.stringify(body)).length;
    return roundedUp(Math.min(bytes, facts.context), facts.inputMax) + roundedUp(Math.min(ask, facts.tokens), facts.outputMax);
  }

  /* ---- the request as code */
  function literal(value, language, indent) {
    var inner = indent + "    ", python = language === "python";
    if (value === null) return python ? "None" : "null";
    if (typeof value === "boolean") return python ? (value ? "True" : "False") : String(value);
    if (typeof value !== "object") return JSON.stringify(value);
    var list = Array.isArray(value), open = list ? "[" : "{", close = list ? "]" : "}";
    var parts = list ? value.map(function (each) { return literal(each, language, inner); })
      : Object.keys(value).map(function (key) { return JSON.stringify(key) + ": " + literal(value[key], language, inner); });
    var short = open + parts.join(", ") + close;
    if (!parts.length || (short.length < 72 && short.indexOf("\n") < 0)) return short;
    return open + "\n" + parts.map(function (each) { return inner + each + ",\n"; }).join("") + indent + close;
  }

  function shown(body) {
    return JSON.parse(JSON.stringify(body), function (key, value) {
      var known = key === "url" && imagesSent().find(function (image) { return image.url === value; });
      return known && value.length > 2000 ? "data:" + known.type + ";base64,BASE64 OF " + known.name : value;
    });
  }

  function python(body, api) {
    var fields = Object.keys(body).map(function (key) { return "    " + key + "=" + literal(body[key], "python", "    ") + ",\n"; });
    return "import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(\n    api_key=os.environ[\"VIPCLOUD_API_KEY\"],\n" +
      "    base_url=" + JSON.stringify(api) + ",\n)\n" + (body.stream ? "stream" : "reply") +
      " = client.chat.completions.create(\n" + fields.join("") + ")\n" + (body.stream
        ? "for chunk in stream:\n    for choice in chunk.choices:\n        print(choice.delta.content or \"\", end=\"\", flush=True)\n"
        : "print(reply.choices[0].message" + (body.tools ? "" : ".content") + ")\n");
  }

  function node(body, api) {
    var fields = Object.keys(body).map(function (key) { return "  " + key + ": " + literal(body[key], "node", "  ") + ",\n"; });
    return "import OpenAI from \"openai\";\n\nconst client = new OpenAI({\n  apiKey: process.env.VIPCLOUD_API_KEY,\n" +
      "  baseURL: " + JSON.stringify(api) + ",\n});\nconst " + (body.stream ? "stream" : "reply") +
      " = await client.chat.completions.create({\n" + fields.join("") + "});\n" + (body.stream
        ? "for await (const chunk of stream) {\n  process.stdout.write(chunk.choices[0]?.delta?.content ?? \"\");\n}\n"
        : "console.log(reply.choices[0].message" + (body.tools ? "" : ".content") + ");\n");
  }

  function curl(body, api) {
    return "curl " + api + "/chat/completions" + (body.stream ? " -N" : "") + " \\\n" +
      "  -H \"Authorization: Bearer $VIPCLOUD_API_KEY\" \\\n  -H \"Content-Type: application/json\" \\\n" +
      "  -d '" + JSON.stringify(body, null, 2).replace(/'/g, "'\\''") + "'\n";
  }

  var WORDS = /("(?:[^"\\]|\\.)*")|\b(\d+(?:\.\d+)?)\b|\b(import|from|for|in|of|const|new|await|None|True|False|null|true|false|curl)\b/g;
  function paint(box, text) {
    var at = 0, nodes = [];
    text.replace(WORDS, function (hit, string, digits, word, offset) {
      nodes.push(text.slice(at, offset), made("span", hit, string ? "s" : digits ? "n" : "k"));
      at = offset + hit.length;
    });
    nodes.push(text.slice(at));
    box.replaceChildren.apply(box, nodes);
  }

  function imagesSent() { return rounds.reduce(function (all, round) { return all.concat(round.images); }, pictures); }

  function draw() {
    drawing = false;
    var chosen = columns(), sum = 0n;
    chosen.forEach(function (choice) { sum += bound(choice, draft(choice)); });
    most.replaceChildren("Costs at most ", money(sum));
    over.disabled = !rounds.length;
    selects.forEach(function (select) {
      part(select.closest(".field"), "data-told").textContent = select.value ? select.selectedOptions[0].dataset.about : "";
    });
    document.querySelectorAll("[data-shown-by]").forEach(function (box) {
      var by = el(box.dataset.shownBy);
      box.hidden = by.type === "checkbox" ? !by.checked : by.value !== "json_schema";
    });
    tellWithout(chosen);
    var names = chosen.map(function (choice) { return choice.model; });
    if (names.join() !== Array.from(codeModel.options, function (option) { return option.text; }).join()) {
      codeModel.replaceChildren.apply(codeModel, names.map(function (name, index) { return new Option(name, index); }));
      document.querySelector("[data-code-of]").hidden = names.length < 2;
    }
    var body = draft(chosen[codeModel.selectedIndex] || chosen[0]), plain = shown(body);
    document.querySelector("[data-shortened]").hidden = JSON.stringify(plain) === JSON.stringify(body);
    document.querySelectorAll("[data-code]").forEach(function (box) {
      paint(box, { python: python, node: node, curl: curl }[box.dataset.code](plain, form.dataset.api));
    });
  }

  function redraw() { if (!drawing) { drawing = true; requestAnimationFrame(draw); } }

  /* Which settings have no effect on a model, or make it refuse. */
  function tellWithout(chosen) {
    var body = parameters(), lines = [], blind = [];
    chosen.forEach(function (choice) {
      var able = choice.facts.supports.split(" ");
      var lacking = Object.keys(body).filter(function (name) {
        if (body[name] === undefined) return false;
        return !able.includes(name === "response_format" && el("p-form").value === "json_schema" ? "structured_outputs" : name);
      });
      if (lacking.length) lines.push(choice.model + " ignores or refuses " + lacking.join(", ") + ".");
      if (!choice.facts.vision) blind.push(choice.model);
    });
    var box = form.querySelector("[data-without]");
    box.hidden = !lines.length;
    box.textContent = lines.join(" ");
    files.disabled = blind.length > 0;
    form.querySelector("[data-vision-hint]").textContent = blind.length ? blind.join(" and ") + (blind.length > 1 ? " take" : " takes") + " no images."
      : "Sent with the next turn.";
  }

  /* ---- pictures: a file becomes a data URL; the small view is drawn, since the page may load no picture but its own */
  function listPictures(box, images, removable) {
    box.hidden = !images.length;
    box.replaceChildren.apply(box, images.map(function (image) {
      var line = document.createElement("li");
      line.append(image.view, made("span", image.name + ", " + calls.number(Math.ceil(image.bytes / 1024)) + " KB"));
      if (removable) {
        var away = made("button", "Remove", "btn btn-bare btn-small");
        away.type = "button";
        away.addEventListener("click", function () {
          pictures = pictures.filter(function (other) { return other !== image; });
          listPictures(box, pictures, true);
          redraw();
        });
        line.append(away);
      }
      return line;
    }));
  }

  async function addPicture(file) {
    var view = document.createElement("canvas"), bitmap = await createImageBitmap(file);
    var scale = Math.min(1, 96 / Math.max(bitmap.width, bitmap.height));
    view.width = Math.max(1, Math.round(bitmap.width * scale));
    view.height = Math.max(1, Math.round(bitmap.height * scale));
    view.getContext("2d").drawImage(bitmap, 0, 0, view.width, view.height);
    view.setAttribute("role", "img");
    view.setAttribute("aria-label", file.name);
    var url = await new Promise(function (done, failed) {
      var reader = new FileReader();
      reader.onload = function () { done(reader.result); };
      reader.onerror = function () { failed(reader.error); };
      reader.readAsDataURL(file);
    });
    pictures.push({ name: file.name, bytes: file.size, type: file.type, url: url, view: view });
  }

  files.addEventListener("change", async function () {
    complain("");
    for (var file of Array.from(files.files)) {
      try { await addPicture(file); } catch (error) { complain(file.name + " is no image that this browser can read. It was not added."); }
    }
    files.value = "";
    listPictures(part(next.parentNode, "data-images"), pictures, true);
    redraw();
  });

  /* ---- answers */
  function complain(text) { problem.hidden = !text; problem.textContent = text; }

  function newLeg(box) {
    var view = copy("t-leg"), text = document.createTextNode(""), thought = document.createTextNode(""), cursor = made("span", "", "cursor");
    part(view, "data-reply").append(text, cursor);
    part(view, "data-reasoning").append(thought);
    box.append(view);
    return { view: view, box: part(view, "data-reply"), text: text, thought: thought, cursor: cursor, calls: [], began: performance.now(), first: 0, id: "", usage: null };
  }

  function set(leg, name, value) {
    var place = leg.view.querySelector('[data-m="' + name + '"]');
    if (typeof value === "string") place.textContent = value;
    else place.replaceChildren(value);
  }

  function seconds(from, to) { var ms = Math.round(to - from); return ms < 1000 ? ms + " ms" : (ms / 1000).toFixed(2) + " s"; }

  function heard(leg, message) {
    if (!leg.first && (message.content || message.reasoning_content || message.tool_calls)) {
      leg.first = performance.now();
      set(leg, "ttft", seconds(leg.began, leg.first));
    }
    if (message.content) leg.text.data += message.content;
    if (message.reasoning_content) {
      leg.thought.data += message.reasoning_content;
      part(leg.view, "data-thought").hidden = false;
    }
    (message.tool_calls || []).forEach(function (piece, place) {
      var call = leg.calls[piece.index === undefined ? place : piece.index];
      if (!call) {
        call = { sent: { id: piece.id, type: "function", function: { name: "", arguments: "" } } };
        leg.calls[piece.index === undefined ? place : piece.index] = call;
      }
      call.sent.function.name += piece.function.name || "";
      call.sent.function.arguments += piece.function.arguments || "";
    });
  }

  function fail(leg, lines, more) {
    var box = part(leg.view, "data-problem");
    box.hidden = false;
    box.replaceChildren.apply(box, lines.map(function (line) { return made("p", line); }));
    if (more) box.append(more);
  }

  function link(text, href) {
    var node = made("a", text), line = document.createElement("p");
    node.href = href;
    line.append(node);
    return line;
  }

  function refused(leg, response, error) {
    var after = parseInt(response.headers.get("retry-after"), 10), more = null;
    if (response.status === 401) more = link("Sign in again", "/login?back=/playground");
    if (response.status === 402) more = link("Add credit", "/credit");
    fail(leg, [
      response.status + " " + (error.code || "") + ": " + (error.message || "no reason was given."),
      "Nothing was charged. Request " + (response.headers.get("x-request-id") || "without an id") + "."
    ], more);
    return response.status === 429 && after > 0 ? after : 0;
  }

  function drawSums(leg) {
    var usage = leg.usage, ended = performance.now();
    set(leg, "all", seconds(leg.began, ended));
    if (!usage && !leg.first) { part(leg.view, "data-sums").hidden = true; return; }
    if (!usage) { set(leg, "tok", "–"); set(leg, "cost", "–"); return; }
    set(leg, "tok", calls.number(usage.prompt_tokens) + " in, " + calls.number(usage.completion_tokens) + " out");
    set(leg, "cost", money(BigInt(Math.round(usage.cost * 1e9))));
  }

  /* A finished answer can be changed before the conversation goes on. */
  function settle(leg, model) {
    leg.cursor.remove();
    leg.box.removeAttribute("aria-busy");
    drawSums(leg);
    if (leg.id) {
      var line = part(leg.view, "data-line");
      line.hidden = false;
      line.firstElementChild.href = "/usage/" + leg.id;
    }
    if (leg.text.data) {
      leg.box.contentEditable = "plaintext-only";
      leg.box.setAttribute("role", "textbox");
      leg.box.setAttribute("aria-multiline", "true");
      leg.box.setAttribute("aria-label", "Answer of " + model);
      leg.text = leg.box;  // whatever it holds by then
    }
    leg.box.hidden = !leg.text.textContent;
  }

  function drawCalls(leg, proceed) {
    var box = part(leg.view, "data-calls");
    leg.calls = leg.calls.filter(Boolean);
    if (!leg.calls.length) return;
    leg.calls.forEach(function (call) {
      var view = copy("t-call"), id = "call-" + Math.random().toString(36).slice(2);
      call.field = view.querySelector("textarea");
      call.field.id = id;
      part(view, "data-name").htmlFor = id;
      part(view, "data-name").textContent = "Calls " + call.sent.function.name;
      part(view, "data-arguments").textContent = call.sent.function.arguments;
      box.append(view);
    });
    var button = made("button", leg.calls.length > 1 ? "Send the results" : "Send the result", "btn btn-small");
    button.type = "button";
    button.addEventListener("click", function () {
      if (running || !allAnswered([leg])) return;
      button.remove();
      leg.done = true;
      proceed();
    });
    leg.done = false;
    box.append(button);
    box.hidden = false;
  }

  function allAnswered(legs) {
    var open = legs.reduce(function (all, leg) { return all.concat(leg.calls); }, []).find(function (call) { return !call.field.value.trim(); });
    if (open) { open.field.focus(); complain("A call waits for its result. Nothing was sent."); }
    return !open;
  }

  async function ask(round, column, model, count, signal) {
    var box = round.boxes[column], before = round.legs[column] || [];
    var list = messages(column, count, false);
    before.forEach(function (leg) { list.push.apply(list, answered(leg)); });
    var body = request(model, list), leg = newLeg(box);
    leg.box.setAttribute("aria-busy", "true");
    var wait = 0, whole = false, ended = null, error = null;
    try {
      var response = await fetch("/playground/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json", "x-vipcloud-form": form.dataset.token },
        body: JSON.stringify(body),
        signal: signal
      });
      if (!response.ok) {
        var told = await response.json().catch(function () { return {}; });
        wait = refused(leg, response, told.error || {});
      } else if (response.headers.get("content-type").startsWith("text/event-stream")) {
        whole = await calls.chunks(response, function (chunk) {
          if (chunk.error) { error = chunk.error; return; }
          leg.id = chunk.id || leg.id;
          if (chunk.usage) leg.usage = chunk.usage;
          chunk.choices.forEach(function (choice) {
            heard(leg, choice.delta);
            ended = choice.finish_reason || ended;
          });
        });
      } else {
        var reply = await response.json();
        error = reply.error || null;
        if (!error) {
          leg.id = reply.id;
          leg.usage = reply.usage;
          ended = reply.choices[0].finish_reason;
          heard(leg, reply.choices[0].message);
        }
        whole = !error;
      }
      if (response.ok && !whole) {
        fail(leg, [(error ? error.code + ": " + error.message : "The answer broke off."),
          (leg.first ? "What was delivered is charged." : "Nothing was charged.") + " Request " + response.headers.get("x-request-id") + "."]);
      } else if (ended === "length") fail(leg, ["The answer ends here: max_tokens was reached, or what your credit covers."]);
    } catch (thrown) {
      if (thrown.name === "AbortError") fail(leg, ["You stopped it. " + (leg.first ? "What was delivered is charged: its line in usage has the sum, within a second." : "Nothing was delivered, and nothing is charged.")]);
      else fail(leg, ["The gateway could not be reached, or the connection broke. What was delivered, if anything, is charged."]);
    }
    if (!leg.first && !leg.usage) leg.id = "";
    if (whole) {
      round.legs[column] = before.concat([leg]);
      drawCalls(leg, function () { run(function (signal) { return [ask(round, column, model, count, signal)]; }); });
    } else if (leg.first) {
      leg.calls = [];
      round.legs[column] = before.concat([leg]);
    }
    settle(leg, model);
    return wait;
  }

  /* ---- sending */
  async function ready() {
    if (form.dataset.ready) return true;
    var response = await fetch("/playground/key", { method: "POST", body: new URLSearchParams({ token: form.dataset.token }) });
    if (response.redirected) { location.assign("/login?back=/playground"); return false; }
    if (!response.ok) throw new Error(String(response.status));
    form.dataset.ready = "yes";
    return true;
  }

  async function run(start) {
    var label = send.textContent, wait = 0;
    running = new AbortController();
    send.textContent = "Stop";
    complain("");
    redraw();
    try {
      if (await ready()) wait = Math.max.apply(null, await Promise.all(start(running.signal)));
    } catch (error) {
      complain("The playground could not be opened (" + error.message + "). Nothing was sent. Load the page again.");
    }
    running = null;
    send.textContent = label;
    status.textContent = "Answered.";
    if (wait) calls.wait(send, wait);
    redraw();
  }

  function newRound(text, images) {
    var view = copy("t-round"), round = { view: view, field: view.querySelector("textarea"), images: images, legs: [], boxes: [] };
    round.field.id = "said-" + Math.random().toString(36).slice(2);
    view.querySelector("label").htmlFor = round.field.id;
    round.field.value = text;
    listPictures(part(view, "data-images"), images, false);
    part(view, "data-again").addEventListener("click", function () {
      if (running) return;
      var place = rounds.indexOf(round);
      rounds.splice(place + 1).forEach(function (later) { later.view.remove(); });
      answer(round);
    });
    turns.append(view);
    rounds.push(round);
    return round;
  }

  function answer(round) {
    if (!valid()) return;
    var chosen = columns(), count = rounds.indexOf(round) + 1, box = part(round.view, "data-answers");
    round.legs = [];
    round.boxes = [];
    box.replaceChildren();
    box.dataset.count = chosen.length;
    part(round.view, "data-who").textContent = chosen.length > 1 ? "Answers" : chosen[0].model;
    round.view.classList.toggle("round-wide", chosen.length > 1);
    chosen.forEach(function (choice) {
      var view = copy("t-answer");
      part(view, "data-name").textContent = choice.model;
      round.boxes[choice.column] = view;
      box.append(view);
    });
    run(function (signal) { return chosen.map(function (choice) { return ask(round, choice.column, choice.model, count, signal); }); });
  }

  function valid() {
    parameters();
    return form.reportValidity();
  }

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    if (running) { running.abort(); return; }
    var last = rounds[rounds.length - 1];
    if (!next.value.trim()) {
      if (last) answer(last);
      else next.focus();
      return;
    }
    if (!valid()) return;
    if (last && !last.legs.flat().length) { complain("The turn above has no answer yet: send it again, or start over. Nothing was sent."); return; }
    if (last && !allAnswered(last.legs.flat().filter(function (leg) { return leg && leg.done === false; }))) return;
    var round = newRound(next.value, pictures);
    next.value = "";
    next.placeholder = "Go on, or change a turn above and send it again";
    pictures = [];
    listPictures(part(next.parentNode, "data-images"), pictures, true);
    answer(round);
  });

  over.addEventListener("click", function () {
    if (running) running.abort();
    rounds.splice(0).forEach(function (round) { round.view.remove(); });
    complain("");
    redraw();
    next.focus();
  });

  form.addEventListener("input", redraw);
  codeModel.addEventListener("change", redraw);
  next.addEventListener("keydown", function (event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); if (!running) form.requestSubmit(); }
  });
  send.disabled = false;
  draw();
})();
