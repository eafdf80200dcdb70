// The same series as a CSV file. A plain link could not ask for it, as the format is chosen by a header.

import type { Params } from "../api/client";
import * as api from "../api/endpoints";

const PAGES_MAX = 20;
const PAGE_POINTS = 10_000;

/** Pages as one file: only the first keeps its heading. */
export function joinCsv(pages: string[]): string {
  return pages
    .map((page, i) => {
      const text = i === 0 ? page : page.slice(page.indexOf("\n") + 1);
      return text === "" || text.endsWith("\n") ? text : `${text}\n`;
    })
    .join("");
}

export async function downloadCsv(params: Params, name: string): Promise<void> {
  const pages: string[] = [];
  let cursor: string | null = null;
  const { signal } = new AbortController();
  do {
    const page = await api.seriesCsvPage({ ...params, limit: PAGE_POINTS, cursor }, signal);
    pages.push(page.csv);
    cursor = page.next;
  } while (cursor !== null && pages.length < PAGES_MAX);
  const url = URL.createObjectURL(new Blob([joinCsv(pages)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has begun to save it by then; freeing at once would race with that.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
