// Pictures of every page, to be looked at: node look.mjs FOLDER [PART OF A NAME]
// Reports what sticks out of the window; long pages are cut into pieces.
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { open, SCHEMES, WIDTHS, withBrowser } from "./browser.mjs";
import { pages, withServer } from "./serve.mjs";

const TALLEST = 6000; // pixels of one picture
const [folder, part = ""] = process.argv.slice(2);
if (!folder) throw new Error("name a folder: node look.mjs FOLDER [PART OF A NAME]");
await mkdir(folder, { recursive: true });
const names = (await pages()).filter((name) => name.includes(part) && !name.startsWith("_modules/"));

/** Save a page in pieces; return how wide and how high it is. */
async function picture(page, path) {
  const [wide, high] = await page.evaluate(() => {
    const { scrollWidth, scrollHeight } = document.documentElement;
    return [scrollWidth, scrollHeight];
  });
  const { width } = page.viewport();
  for (let y = 0, piece = 1; y < high; y += TALLEST, piece += 1) {
    // Not beyond the window: Chromium would lay the page out anew, as if the window were wider.
    await page.setViewport({ width, height: Math.min(TALLEST, high - y) });
    await page.evaluate((top) => window.scrollTo(0, top), y);
    await page.screenshot({ path: `${path}-${piece}.png`, captureBeyondViewport: false });
  }
  return { wide, high };
}

await withServer((address) =>
  withBrowser(async (browser) => {
    for (const name of names) {
      for (const scheme of SCHEMES) {
        for (const width of WIDTHS) {
          const page = await open(browser, `${address}/${name}`, width, scheme);
          const stem = name.replaceAll("/", "-").replace(".html", "");
          const { wide } = await picture(page, join(resolve(folder), `${stem}-${width}-${scheme}`));
          if (wide > width) console.log(`${name}, ${width} px: the page is ${wide} px wide`);
          await page.close();
        }
      }
    }
  }),
);
console.log(`${names.length} pages, ${SCHEMES.length * WIDTHS.length} times each: ${folder}`);
