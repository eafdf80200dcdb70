import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./Icon";

const KEYS: [string[], string][] = [
  [["/"], "Find a device, group or fleet"],
  [["↑", "↓", "Enter"], "Choose in the list"],
  [["1", "2", "3", "4"], "Overview, live, history, groups"],
  [["+", "−"], "History: closer, further"],
  [["←", "→"], "History: earlier, later"],
  [["End"], "History: up to now"],
  [["Backspace"], "History: the zoom before"],
  [["Space"], "Live: stop, go on"],
  [["t"], "Light or dark"],
  [["?"], "This help"],
];

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-labelledby="help-title"
      onClose={onClose}
      data-testid="help-dialog"
    >
      <header>
        <h2 id="help-title">Keyboard shortcuts</h2>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      <dl>
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="help-more">
        The same figures for programs: <a href="/docs">the API and a page to try it</a>.
      </p>
    </dialog>
  );
}
