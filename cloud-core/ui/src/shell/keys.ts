/** Keys that a field or a control wants for itself are left to it. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement | null;
  return (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    target?.closest("input, select, textarea, dialog") != null
  );
}

/** Space and Enter press a button or follow a link, if one has the focus. */
export function isPressing(event: KeyboardEvent): boolean {
  return (event.target as HTMLElement | null)?.closest("button, a, summary") != null;
}
