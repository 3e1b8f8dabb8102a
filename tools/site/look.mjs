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
  for (let y = 0, piece = 1; y < high; y += TALLEST, piece += 1) {
    const clip = { x: 0, y, width: page.viewport().width, height: Math.min(TALLEST, high - y) };
    await page.screenshot({ path: `${path}-${piece}.png`, clip, captureBeyondViewport: true });
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
