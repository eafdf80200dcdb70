import type { ComponentChildren } from "preact";
import type { Level } from "../model/health";
import { Icon } from "../shell/Icon";

interface CardProps {
  title: string;
  testid: string;
  level: Level;
  wide?: "half" | "full";
  aside?: ComponentChildren;
  children: ComponentChildren;
}

export function Card({ title, testid, level, wide, aside, children }: CardProps) {
  const classes = ["card", wide ? `card-${wide}` : "", level === "none" ? "" : `level-${level}`];
  return (
    <section
      class={classes.filter(Boolean).join(" ")}
      aria-label={title}
      data-testid={testid}
      data-level={level}
    >
      <header class="card-head">
        <h2>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

/** A part whose store is away. The rest of the page goes on. */
export function Unavailable({ problem }: { problem: string | null }) {
  return (
    <div class="unavailable" data-testid="unavailable">
      <Icon name="warn" />
      <p>
        <b>Not available</b>
        {problem ? `: ${problem}` : ". The core did not say why."}
      </p>
    </div>
  );
}
