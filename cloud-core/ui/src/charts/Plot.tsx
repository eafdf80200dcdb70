// uPlot in a component: made once for its options, as wide as its box, drawn again when colours change.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { useStore } from "../load/store";
import { palette } from "../shell/theme";

export type { uPlot };

interface PlotProps {
  /** Another identity makes another chart. */
  options: Omit<uPlot.Options, "width" | "height">;
  data: uPlot.AlignedData;
  height_px: number;
  /** The visible range of time; the chart never chooses one by itself. */
  from_ms: number;
  to_ms: number;
  onReady?: (plot: uPlot | null) => void;
}

export function Plot({ options, data, height_px, from_ms, to_ms, onReady }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const colours = useStore(palette);
  const ready = useRef(onReady);
  ready.current = onReady;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const made = new uPlot(
      { ...options, width: element.clientWidth || 300, height: height_px },
      data,
      element,
    );
    plot.current = made;
    ready.current?.(made);
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height: height_px });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      ready.current?.(null);
      plot.current = null;
      made.destroy();
    };
    // Data and range have their own effect below.
  }, [options, height_px]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    made.batch(() => {
      made.setData(data, false);
      made.setScale("x", { min: from_ms, max: to_ms });
    });
  }, [data, from_ms, to_ms, options, height_px]);

  useEffect(() => plot.current?.redraw(false, true), [colours]);

  return <div class="plot" ref={box} />;
}
