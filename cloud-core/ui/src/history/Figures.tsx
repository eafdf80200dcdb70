// The same buckets as a table, for those who read figures rather than lines.
import { useState } from "preact/hooks";
import { count, measured } from "../model/format";
import { type HistoryData, markOf } from "../model/history";
import { bucketText } from "./Tooltip";

const ROWS_MAX = 200;

export function Figures({ data }: { data: HistoryData }) {
  const [open, setOpen] = useState(false);
  const rows = open ? data.points.slice(-ROWS_MAX).reverse() : [];
  return (
    <details class="figures" onToggle={(event) => setOpen(event.currentTarget.open)} data-testid="figures">
      <summary>Figures as a table</summary>
      {data.points.length > ROWS_MAX && (
        <p class="muted">The newest {ROWS_MAX} buckets; the CSV has all of them.</p>
      )}
      <div class="table-scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Bucket</th>
              {["count", "min", "p50", "avg", "p95", "max"].map((name) => (
                <th scope="col" class="num" key={name}>
                  {name}
                </th>
              ))}
              <th scope="col">Mark</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((point) => (
              <tr key={point.at}>
                <td>{bucketText(data, point.at_ms)}</td>
                <td class="num">{count(point.count)}</td>
                {[point.min, point.p50, point.avg, point.p95, point.max].map((value, i) => (
                  <td class="num" key={i}>
                    {measured(value)}
                  </td>
                ))}
                <td>{markOf(point) === "revised" ? `revision ${point.revision}` : (markOf(point) ?? "")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
