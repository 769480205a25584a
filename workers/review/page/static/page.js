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

// One click is one decision.
for (const each of document.forms) {
  each.addEventListener("submit", (event) => {
    if (each.dataset.sent) { event.preventDefault(); return; }
    each.dataset.sent = "1";
  });
}
addEventListener("pageshow", () => { for (const each of document.forms) delete each.dataset.sent; });

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
    try {
      answer = await fetch(form.dataset.lease, {
        method: "POST", credentials: "same-origin", redirect: "error",
        body: new URLSearchParams({ csrf: form.elements.csrf.value }),
      });
    } catch { return; }
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
