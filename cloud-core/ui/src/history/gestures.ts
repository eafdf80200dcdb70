// Wheel and fingers on the chart: the wheel and a pinch zoom at the pointer, one finger or a sideways wheel pans.

export interface GestureEvents {
  /** Factor below 1 is closer; `at` is the share of the width that stays where it is. */
  zoom: (factor: number, at: number) => void;
  pan: (share: number) => void;
}

const WHEEL_STEP = 0.0018;

export function listenToGestures(over: HTMLElement, events: GestureEvents): () => void {
  const touches = new Map<number, number>();
  const share = (x: number) => {
    const box = over.getBoundingClientRect();
    return Math.min(1, Math.max(0, (x - box.left) / box.width));
  };

  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    const unit_px = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      const by_px = (event.deltaX || event.deltaY) * unit_px;
      events.pan(by_px / over.clientWidth);
    } else {
      const by_px = Math.min(240, Math.max(-240, event.deltaY * unit_px));
      events.zoom(Math.exp(by_px * WHEEL_STEP), share(event.clientX));
    }
  };
  const onDown = (event: PointerEvent) => {
    if (event.pointerType === "touch") touches.set(event.pointerId, event.clientX);
  };
  const onMove = (event: PointerEvent) => {
    const before = touches.get(event.pointerId);
    if (before === undefined) return;
    const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
    // A finger that taps is never quite still.
    if (event.clientX === before) return;
    touches.set(event.pointerId, event.clientX);
    const other = others[0];
    if (other === undefined) {
      events.pan((before - event.clientX) / over.clientWidth);
      return;
    }
    const [was, is] = [Math.abs(before - other), Math.abs(event.clientX - other)];
    if (was > 10 && is > 10) events.zoom(was / is, share((event.clientX + other) / 2));
  };
  const onUp = (event: PointerEvent) => touches.delete(event.pointerId);

  // Up and down still scrolls the page.
  over.style.touchAction = "pan-y";
  over.addEventListener("wheel", onWheel, { passive: false });
  over.addEventListener("pointerdown", onDown);
  over.addEventListener("pointermove", onMove);
  over.addEventListener("pointerup", onUp);
  over.addEventListener("pointercancel", onUp);
  return () => {
    over.removeEventListener("wheel", onWheel);
    over.removeEventListener("pointerdown", onDown);
    over.removeEventListener("pointermove", onMove);
    over.removeEventListener("pointerup", onUp);
    over.removeEventListener("pointercancel", onUp);
  };
}
