// Debian's Chromium, or the one that CHROMIUM names, showing a page as a reader's system would ask for it.
import { existsSync } from "node:fs";
import puppeteer from "puppeteer-core";

export const SCHEMES = ["light", "dark"];
export const WIDTHS = [1280, 390]; // pixels: a laptop, a telephone
const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** A headless browser while `use(browser)` runs. */
export async function withBrowser(use) {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("no Chromium found: install it, or name it in the variable CHROMIUM");
  const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    return await use(browser);
  } finally {
    await browser.close();
  }
}

/** Open an address in a window of some width, light or dark, and wait until its formulas are drawn. */
export async function open(browser, url, width, scheme) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url, { waitUntil: "load", timeout: 60_000 });
  await page.evaluate(() => window.MathJax?.startup?.promise);
  return page;
}
