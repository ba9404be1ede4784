/* Runs before the first paint, so that a chosen theme does not flash. app.js does the rest. */
(function () {
  "use strict";
  try {
    var kept = localStorage.getItem("theme");
    if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  } catch (e) { /* private mode: the system's theme holds */ }
})();
