/* What the theme's pages lack for a screen reader, found by axe-core (make site-check). */
document.addEventListener("DOMContentLoaded", () => {
  // A label that leaves out the visible text is no use to who speaks to the page: the text itself is the better name.
  for (const summary of document.querySelectorAll("summary[aria-label]")) summary.removeAttribute("aria-label");
  for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
  // The icon of the colour mode counts as text, because its title is drawn by CSS when a font is missing.
  for (const icon of document.querySelectorAll(".pst-navbar-icon i, .pst-navbar-icon svg")) icon.setAttribute("aria-hidden", "true");
  // The sidebar belongs to no landmark.
  document.querySelector(".bd-sidebar-primary")?.setAttribute("role", "complementary");
  document.querySelector(".bd-sidebar-primary")?.setAttribute("aria-label", "Contents of the book");
  // The list of modules puts lists beside items instead of into them.
  for (const list of document.querySelectorAll("article ul > ul")) list.previousElementSibling?.append(list);
});
