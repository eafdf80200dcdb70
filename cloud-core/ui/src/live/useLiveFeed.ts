import { useEffect, useRef, useState } from "preact/hooks";
import { type Target, targetParams } from "../model/route";
import { session } from "../session/session";
import { LiveFeed } from "./feed";

const DRAW_EVERY_MS = 500;

/** A feed for a target; draws with its changes and with time, since the window moves. */
export function useLiveFeed(target: Target, aggregate: boolean): LiveFeed | null {
  const [, redraw] = useState(0);
  const feed = useRef<LiveFeed | null>(null);
  const key = JSON.stringify(targetParams(target));

  useEffect(() => {
    const params = {
      ...(JSON.parse(key) as Record<string, string>),
      ...(aggregate ? { aggregate: "avg" } : {}),
    };
    // Messages only fill the feed; the clock below draws, at one pace whatever comes.
    let state = "";
    const made = new LiveFeed(
      params,
      () => {
        if (state === made.state) return;
        state = made.state;
        redraw((n) => n + 1);
      },
      () => session.set({ kind: "out", ended: true }),
    );
    feed.current = made;
    made.start();
    const timer = setInterval(() => {
      if (!document.hidden && made.state !== "stopped") redraw((n) => n + 1);
    }, DRAW_EVERY_MS);
    return () => {
      clearInterval(timer);
      made.stop();
      feed.current = null;
    };
  }, [key, aggregate]);

  return feed.current;
}
