// axe-core on every page, light and dark, wide and narrow: node accessibility.mjs [PART OF A NAME]
// One serious or critical finding fails; the others are listed too.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { open, SCHEMES, WIDTHS, withBrowser } from "./browser.mjs";
import { pages, withServer } from "./serve.mjs";

const AXE = await readFile(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");
const names = (await pages()).filter((name) => name.includes(process.argv[2] ?? ""));

/** What axe says of a page in each width: [{rule, impact, place, html, message}, ...]. */
async function findings(browser, url, scheme) {
  const page = await open(browser, url, WIDTHS[0], scheme);
  await page.evaluate(AXE);
  const found = [];
  for (const width of WIDTHS) {
    await page.setViewport({ width, height: 900 });
    await new Promise((resolve) => setTimeout(resolve, 500)); // the theme makes what scrolls reachable by the keyboard, after a while
    const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, impact, nodes } of result.violations) {
      for (const node of nodes) {
        const message = node.failureSummary.split("\n")[1].trim();
        found.push({ rule: id, impact, where: `${scheme}, ${width} px`, place: node.target.join(" "), html: node.html, message });
      }
    }
  }
  await page.close();
  return found;
}

const rules = new Map(); // rule -> its findings, and the pages that have one
await withServer((address) =>
  withBrowser(async (browser) => {
    for (const [position, name] of names.entries()) {
      if (process.stderr.isTTY) process.stderr.write(`\r${position + 1} of ${names.length} `);
      for (const scheme of SCHEMES) {
        for (const finding of await findings(browser, `${address}/${name}`, scheme)) {
          const rule = rules.get(finding.rule) ?? { impact: finding.impact, on: new Set(), found: [] };
          rule.on.add(name);
          rule.found.push({ name, ...finding });
          rules.set(finding.rule, rule);
        }
      }
    }
  }),
);

const counts = { critical: 0, serious: 0, moderate: 0, minor: 0 };
for (const [id, { impact, on, found }] of rules) {
  counts[impact] += found.length;
  console.log(`${impact} ${id}: ${found.length} places on ${on.size} pages`);
  const shown = new Map(found.map((one) => [`${one.where} ${one.message}`, one])); // one of each kind
  for (const one of [...shown.values()].slice(0, 8)) {
    console.log(`    ${one.name}, ${one.where}, ${one.place}: ${one.message}`);
    console.log(`        ${one.html.slice(0, 140).replaceAll(/\s+/g, " ")}`);
  }
}
const list = Object.entries(counts).map(([impact, count]) => `${count} ${impact}`).join(", ");
console.log(`${names.length} pages, light and dark, ${WIDTHS.join(" and ")} px wide: ${list}`);
process.exitCode = counts.critical + counts.serious ? 1 : 0;
