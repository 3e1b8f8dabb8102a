// Broken links of the built website, anchors included: node links.mjs
// Links to other servers are not followed: whether they still answer is no property of this build.
import { LinkChecker } from "linkinator";
import { pages, withServer } from "./serve.mjs";

const names = await pages();
const result = await withServer((address) =>
  new LinkChecker().check({
    path: names.map((name) => `${address}/${name}`),
    recurse: true,
    checkFragments: true,
    concurrency: 8,
    linksToSkip: async (link) => !link.startsWith(address),
  }),
);

const local = result.links.filter((link) => link.state !== "SKIPPED");
const broken = local.filter((link) => link.state === "BROKEN");
for (const link of broken) {
  const [page, target] = [link.parent ?? "", link.url].map((url) => url.replace(/^http:\/\/127\.0\.0\.1:\d+/, ""));
  console.log(`${page}: ${target} (${link.status})`);
}
console.log(`${names.length} pages, ${local.length} links inside the site: ${broken.length} broken`);
process.exitCode = broken.length ? 1 : 0;
