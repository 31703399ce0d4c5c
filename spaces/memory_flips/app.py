"""The Space: does memory change a model's answer? Draws only; what happens is in unswayed.space.

Run it from the repository: `python spaces/memory_flips/app.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr

from unswayed.core.errors import InputError
from unswayed.space import flips, links, models, pages, tables, uploads
from unswayed.space.events import SWEEP_COLUMNS, Space

HERE = Path(__file__).resolve().parent
# Beside this file on the Hub, else the repository's.
RESULTS = next((p for p in (HERE / "results", HERE.parents[1] / "results") if p.is_dir()), HERE)

space = Space(RESULTS / "flips.json")
stored = tables.stored(RESULTS)
first = space.first()
OWN_FIELDS = ("scenario", "options", "a_text", "b_text")
theme = gr.themes.Default(
    primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"]
).set(  # white on these has a contrast above 5:1
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_cancel_background_fill="#b91c1c",
    button_cancel_background_fill_dark="#b91c1c",
    button_cancel_background_fill_hover="#991b1b",
)


def draw(result: tables.ResultView):
    return pages.notice(result.note), result.plots, result.first, result.second


def nothing(message: str):
    return pages.complaint(message), "", None, None


def show_stored(label: str):
    try:
        return draw(tables.show_file(Path(stored[label])))
    except (InputError, KeyError) as error:
        return nothing(str(error))


def show_source(source: str):
    try:
        return draw(tables.show_source(source))
    except InputError as error:
        return nothing(str(error))


def state_of(*values: str) -> links.State:
    """The state that the components of `fields` hold."""
    return links.State(**dict(zip(fields, values, strict=True)))


def show(state: links.State) -> list:
    """Values of the components of `fields`; those for own texts are shown where they are used."""
    updates = visible(state.item, state.a, state.b)
    values = vars(state) | {
        name: update | {"value": getattr(state, name)}
        for name, update in zip(OWN_FIELDS, updates, strict=True)
    }
    return [values[name] for name in fields]


def visible(item: str, a: str, b: str):
    own = [gr.update(visible=choice == flips.OWN) for choice in (item, a, b)]
    return own[0], own[0], own[1], own[2]


def on_load(request: gr.Request):
    query = dict(request.query_params)
    return show(links.from_query(query) if "item" in query else first)


def flip(*values: str) -> str:
    return space.flip(state_of(*values))


def surprise(model: str):
    state, note = space.surprise(model)
    return (*show(state), pages.notice(note))


def query(*values: str) -> str:
    return links.to_query(state_of(*values))


def sweep(model, item, scenario, options, request: gr.Request):
    state = links.State(model, item, scenario, options)
    yield from space.sweep(request.session_hash or "", state)


def audit(model, items, personas, pairs, request: gr.Request):
    """A small audit: what is said, and the files once it is done."""
    session = request.session_hash or ""
    for note, files, share in space.audit(session, model, items, personas, pairs):
        yield note + pages.progress_bar(share), files or None


def cancelled():
    return pages.notice("Cancelled.")


def plain(function, *arguments):
    """For endpoints: an error in plain words instead of a page."""
    try:
        return function(*arguments)
    except InputError as error:
        raise gr.Error(str(error)) from None


def api_flip(
    item: str, a: str, b: str, model: str = "", scenario: str = "", options: str = "",
    a_text: str = "", b_text: str = "",
) -> dict:  # fmt: skip
    """One item without memory, with memory a and with memory b: probabilities, answers, flips."""
    model = model or first.model
    return plain(space.api_flip, links.State(model, item, scenario, options, a, a_text, b, b_text))


def api_choices() -> dict:
    """Models, items, users and stored results by name."""
    return {
        "models": models.choices(),
        "items": {key: item.scenario for key, item in flips.items().items()},
        "users": {key: flips.notes(user) for key, user in flips.users().items()},
        "results": list(stored),
    }


def api_results(label: str) -> dict:
    """The tables of a stored result."""
    if label not in stored:
        raise gr.Error("no stored result of that name; /choices has them")
    return plain(lambda: tables.records(tables.show_file(Path(stored[label]))))


def memory_fields(label: str, value: str) -> tuple[gr.Dropdown, gr.Textbox]:
    """A column to choose a memory in: the list, and a field for words of one's own."""
    with gr.Column(min_width=280):
        users = flips.user_choices()
        chosen = gr.Dropdown(users, value=value, label=label, num_choices_shown=None)
        text = gr.Textbox(
            label=f"{label} in your words", lines=3, visible=False, max_length=flips.NOTES
        )
    return chosen, text


with gr.Blocks(
    title="Does memory change the answer?", analytics_enabled=False, delete_cache=(60, 3600)
) as demo:
    gr.Markdown(pages.text("lead"))
    with gr.Tabs():
        with gr.Tab("Flip", id="flip"):
            gr.Markdown(pages.text("flip"))
            item = gr.Dropdown(
                flips.item_choices(), value=first.item, label="Question", num_choices_shown=None
            )
            scenario = gr.Textbox(
                label=f"Your question (up to {flips.SCENARIO} characters)", lines=3, visible=False,
                max_length=flips.SCENARIO,
            )  # fmt: skip
            options = gr.Textbox(
                label=f"Your options, one a line (up to {flips.OPTIONS})", lines=4, visible=False,
                max_length=links.LONGEST["options"],
            )  # fmt: skip
            with gr.Row():
                a, a_text = memory_fields("First memory", first.a)
                b, b_text = memory_fields("Second memory", first.b)
            with gr.Row():
                asked = gr.Button("Ask", variant="primary", elem_id="ask", min_width=120)
                surprised = gr.Button("Surprise me", elem_id="surprise", min_width=120)
            stored_note = gr.HTML(elem_id="stored")
            page = gr.HTML(elem_id="page")
            with gr.Accordion("Model, link, and all pairs", open=False):
                model = gr.Dropdown(
                    [(label, name) for name, label in models.choices().items()],
                    value=first.model, label="Model",
                )  # fmt: skip
                linked = gr.Button("Make a link to what is chosen", elem_id="make-link")
                link = gr.Textbox(label="Link", buttons=["copy"], interactive=False, elem_id="link")
                with gr.Row():
                    swept = gr.Button("Ask about all 30 pairs", elem_id="sweep", min_width=120)
                    halted = gr.Button("Cancel", variant="stop", elem_id="halt", min_width=120)
                sweep_note = gr.HTML(elem_id="sweep-note")
                sweep_table = gr.Dataframe(
                    label="All pairs",
                    headers=[*SWEEP_COLUMNS],
                    interactive=False,
                    show_search="filter",
                    wrap=True,
                )
            fields = {  # of links.State
                "model": model, "item": item, "scenario": scenario, "options": options,
                "a": a, "a_text": a_text, "b": b, "b_text": b_text,
            }  # fmt: skip
            state = list(fields.values())
            own_fields = [fields[name] for name in OWN_FIELDS]
        with gr.Tab("Results", id="results"):
            gr.Markdown(pages.text("results"))
            result = gr.Dropdown(list(stored), value=next(iter(stored), None), label="Result")
            with gr.Accordion("Another result", open=False):
                source = gr.Textbox(
                    label="hub:OWNER/NAME, or on your own machine a run directory", max_length=200
                )
                opened = gr.Button("Show")
            result_note = gr.HTML(elem_id="result-note")
            result_plots = gr.HTML(elem_id="result-plots")
            result_first = gr.Dataframe(label="Levels", interactive=False, show_search="filter")
            result_second = gr.Dataframe(
                label="Differences, or facts of training", interactive=False, show_search="filter"
            )
            results = [result_note, result_plots, result_first, result_second]
        with gr.Tab("Audit your own", id="audit"):
            gr.Markdown(pages.text("audit"))
            with gr.Row():
                items = gr.File(
                    label="Items (JSONL or CSV)", elem_id="items", file_types=[*uploads.ITEM_FILES]
                )
                personas = gr.File(
                    label="Personas (YAML)", elem_id="personas", file_types=[*uploads.PERSONA_FILES]
                )
            pairs = gr.Slider(2, uploads.PAIRS, value=2, step=1, label="Persona pairs")
            with gr.Row():
                audited = gr.Button("Audit", variant="primary", elem_id="audit-run", min_width=120)
                stopped = gr.Button("Cancel", variant="stop", elem_id="audit-stop", min_width=120)
            audit_note = gr.HTML(elem_id="audit-note")
            audit_files = gr.File(label="report.html and answers.parquet", interactive=False)
        with gr.Tab("About", id="about"):
            gr.Markdown(pages.text("about"))

    # Before the events, which would take the names of their functions.
    gr.api(api_flip, api_name="flip", concurrency_id="ask")
    gr.api(api_choices, api_name="choices")
    gr.api(api_results, api_name="results")
    private = {"api_visibility": "private"}
    chosen = [item.input, a.input, b.input]
    gr.on(chosen, visible, [item, a, b], own_fields, queue=False, show_progress="hidden", **private)
    demo.load(on_load, None, state, **private).then(
        flip, state, page, concurrency_id="ask", concurrency_limit=4, **private
    )
    asked.click(flip, state, page, concurrency_id="ask", trigger_mode="once", **private).then(
        lambda: "", None, stored_note, queue=False, **private
    )
    surprised.click(surprise, model, [*state, stored_note], trigger_mode="once", **private).then(
        flip, state, page, concurrency_id="ask", **private
    )
    linked.click(query, state, link, **private).then(
        None, link, link, js="(q) => window.location.origin + window.location.pathname + q"
    )
    # Cancelled work leaves the queue if it waits, and its iterator is closed if it runs; so it is
    # when a visitor leaves.
    sweeping = swept.click(
        sweep, [model, item, scenario, options], [sweep_note, sweep_table], api_name="sweep",
        concurrency_id="sweep", concurrency_limit=2, trigger_mode="once", show_progress="minimal",
    )  # fmt: skip
    # Said after the end: a line of the work that is on its way would else stand over it.
    halted.click(None, cancels=sweeping, queue=False, **private).then(
        cancelled, None, sweep_note, queue=False, **private
    )
    result.change(show_stored, result, results, **private)
    demo.load(show_stored, result, results, **private)
    opened.click(show_source, source, results, concurrency_limit=1, **private)
    auditing = audited.click(
        audit, [model, items, personas, pairs], [audit_note, audit_files],
        api_name="audit", concurrency_limit=1, trigger_mode="once", show_progress="minimal",
    )  # fmt: skip
    stopped.click(None, cancels=auditing, queue=False, **private).then(
        cancelled, None, audit_note, queue=False, **private
    )

demo.queue(max_size=64)

if __name__ == "__main__":
    space.warm()
    demo.launch(
        theme=theme,
        css=pages.style(),
        max_file_size=uploads.BYTES,
        server_name=os.environ.get("GRADIO_SERVER_NAME"),
        ssr_mode=False,
    )
