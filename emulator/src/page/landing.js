
"use strict";
(() => {
  const field = document.getElementById("url");
  document.documentElement.classList.add("works");
  if (!field) return;
  const status = document.getElementById("status");
  field.addEventListener("focus", () => field.select());
  document.getElementById("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value);
      status.textContent = "Copied.";
    } catch {
      field.select();
      status.textContent = "The browser refused. The URL is selected: copy it by keyboard.";
    }
  });
})();
