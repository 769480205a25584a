// What the page does beyond plain forms: keys, the countdown of undo, and the lease that is kept while the page is open.
"use strict";

const say = (text) => { document.getElementById("said").textContent = text; };
const reveal = document.getElementById("reveal");
const form = document.getElementById("decide");

if (!window.isSecureContext) {
  for (const warning of document.querySelectorAll("[data-insecure]")) warning.hidden = false;
}

// A decision by key needs the text on the screen. A key that is held down must not decide the next item too.
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && event.target.matches("textarea, input")) { event.target.blur(); return; }
  if (event.target.matches("textarea, select, input:not([type=checkbox], [type=radio])")) return;
  const key = event.key.toLowerCase();
  if (key === "v" && reveal) { reveal.click(); event.preventDefault(); return; }
  if (key === "t" && form) { form.elements.note.focus(); event.preventDefault(); return; }
  const correction = form && form.querySelector("details");
  if (key === "c" && correction) { correction.open = !correction.open; event.preventDefault(); return; }
  const target = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.type === "checkbox") {
    correction.open = true;
    target.click();
  } else if ("needsText" in target.dataset && reveal && !reveal.checked) {
    say("Show the text first: v");
    reveal.closest("section").scrollIntoView({ block: "nearest" });
  } else {
    target.click();
  }
});

// A worker that hangs takes the connection and never answers.
const beat = () => fetch(form.dataset.lease, {
  method: "POST", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(5000),
  body: new URLSearchParams({ csrf: form.elements.csrf.value }),
});

// If the worker does not answer, the browser would replace the page, with what was typed, by its own error.
const sendIfAnswered = async (button) => {
  const problem = form.querySelector(".problem");
  let answer;
  try { answer = await beat(); } catch { /* no connection */ }
  delete form.dataset.sent;
  if (!answer || answer.status >= 500) {
    problem.hidden = false;
    problem.textContent = "The review worker does not answer, and nothing was sent. Decide again in a moment.";
    say(problem.textContent);
    return;
  }
  form.dataset.answered = "1";
  form.requestSubmit(button);
};

// One click is one decision.
for (const each of document.forms) {
  each.addEventListener("submit", (event) => {
    const isFirst = !each.dataset.sent;
    each.dataset.sent = "1";
    if (isFirst && (each !== form || each.dataset.answered)) return;
    event.preventDefault();
    if (isFirst) sendIfAnswered(event.submitter);
  });
}
addEventListener("pageshow", () => {
  for (const each of document.forms) { delete each.dataset.sent; delete each.dataset.answered; }
});

for (const button of document.querySelectorAll("[data-until]")) {
  const end = performance.now() + 1000 * Number(button.dataset.until);
  const count = button.querySelector(".count");
  const tick = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0) { button.form.remove(); return; }
    count.textContent = `${left} s`;
    setTimeout(tick, 250);
  };
  tick();
}

if (form && form.dataset.lease) {
  const line = form.querySelector(".lease");
  const keep = async () => {
    let answer;
    try { answer = await beat(); } catch { return; }
    if (answer.ok) {
      const until = await answer.json();
      const time = line.querySelector("[data-until-time]");
      time.dateTime = until.iso;
      time.textContent = until.clock;
    } else if (answer.status < 500) {
      line.className = "error lease";
      line.textContent = "This item is not yours any more: reload the page.";
      say(line.textContent);
      clearInterval(timer);
    }
  };
  const timer = setInterval(keep, 1000 * Number(form.dataset.every));
}

const refresh = document.querySelector(".empty[data-refresh]");
if (refresh) setTimeout(() => { location.reload(); }, 1000 * Number(refresh.dataset.refresh));
