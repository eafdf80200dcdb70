// The newest dead letters of one reason, as far as the role may see them.
import { useEffect, useRef } from "preact/hooks";
import * as api from "../api/endpoints";
import { useLoad } from "../load/useLoad";
import { clockTime, day, words } from "../model/format";
import { overviewRoute } from "../model/route";
import { Icon } from "../shell/Icon";
import { go } from "../shell/router";
import { Empty, Failed, Loading } from "../shell/states";

const LETTERS_MAX = 50;

function List({ reason }: { reason: string }) {
  const { data, error, reload } = useLoad(`letters/${reason}`, "the dead letters", (signal) =>
    api.deadLetters({ reason, limit: LETTERS_MAX }, signal),
  );
  if (!data)
    return error ? <Failed error={error} onRetry={reload} /> : <Loading what="the dead letters" lines={5} />;
  if (data.dead_letters.length === 0) {
    return (
      <Empty icon="check" title="None left">
        <p>They have been replayed, or are older than 30 days.</p>
      </Empty>
    );
  }
  return (
    <ul class="letters">
      {data.dead_letters.map((letter) => {
        const at_ms = Date.parse(letter.appended_at);
        return (
          <li key={letter.id} data-testid="letter">
            <p>
              <b>{letter.device_id ?? "unknown device"}</b>
              <span class={`tag ${letter.state}`}>{letter.state}</span>
              <time dateTime={letter.appended_at}>
                {day(at_ms)}, {clockTime(at_ms)}
              </time>
            </p>
            <p class="muted">
              {[letter.fleet, letter.gateway, letter.stage].filter(Boolean).join(" · ")} ·{" "}
              <code>{letter.id}</code>
            </p>
            {letter.detail_preview && <pre>{letter.detail_preview}</pre>}
          </li>
        );
      })}
    </ul>
  );
}

export function Letters({ reason }: { reason: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const close = () => go(overviewRoute);
  return (
    <dialog
      ref={dialog}
      class="drawer"
      aria-labelledby="letters-title"
      onClose={close}
      onClick={(event) => {
        // A click on the backdrop arrives at the dialog itself.
        if (event.target === dialog.current) dialog.current?.close();
      }}
      onKeyDown={(event) => event.stopPropagation()}
      data-testid="letters"
    >
      <header>
        <div>
          <h2 id="letters-title">{words(reason)}</h2>
          <p class="muted">The newest {LETTERS_MAX} dead letters with this reason</p>
        </div>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      <List key={reason} reason={reason} />
    </dialog>
  );
}
