/* What the theme's pages lack for a screen reader or a keyboard, found by axe-core (make site-check). */

// A label that leaves out the visible text is no use to who speaks to the page: the text itself is the better name.
function nameControls() {
  for (const control of document.querySelectorAll("summary[aria-label], .search-button-field")) control.removeAttribute("aria-label");
  // The icons of the colour mode bring titles of their own into the button's name.
  // They are pictures of what the button says already, so a screen reader passes them by.
  for (const icon of document.querySelectorAll(".theme-switch")) {
    for (const name of ["title", "role", "aria-labelledby"]) icon.removeAttribute(name);
    icon.setAttribute("aria-hidden", "true");
  }
  for (const title of document.querySelectorAll(".theme-switch title")) title.remove();
}

// What scrolls sideways on a small screen has to be reached by the keyboard.
function reachWhatScrolls() {
  for (const box of document.querySelectorAll(".bd-article table.table, .bd-article .cell_output")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  nameControls();
  // The sidebar belongs to no landmark.
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Contents of the book");
  // Each reference is a list of its own, and its entry has a role that is no list item's and is no longer in use.
  for (const entry of document.querySelectorAll(".citation-list[role], .citation[role]")) entry.removeAttribute("role");
  // The list of modules puts lists beside items instead of into them.
  for (const list of document.querySelectorAll("article ul > ul")) list.previousElementSibling?.append(list);
});
window.addEventListener("load", () => {
  nameControls(); // the icons are drawn late
  reachWhatScrolls();
  new MutationObserver(nameControls).observe(document.querySelector(".theme-switch-button") ?? document.head, { childList: true, subtree: true });
});
window.addEventListener("resize", reachWhatScrolls);
