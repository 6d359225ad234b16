"""The live view in a real JupyterLab, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cells import BANK, CLUSTER
from lab import PATIENCE_MS, Lab, started

LEADER = ".graft [data-leader]"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started() as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_wrong(lab: Lab) -> Iterator[None]:
    lab.wrong.clear()
    yield
    assert not lab.wrong


def press(lab: Lab, action: str) -> None:
    lab.page.click(f'.graft button[data-action="{action}"]')


def said(lab: Lab, words: str) -> None:
    lab.page.wait_for_function(
        "words => document.querySelector('.graft .say').textContent.includes(words)", arg=words, timeout=PATIENCE_MS
    )


def healthy(lab: Lab, health: str) -> None:
    lab.page.wait_for_function(
        "health => document.querySelector('.graft .badge').textContent === health", arg=health, timeout=PATIENCE_MS
    )


def test_the_buttons_do_what_they_say_and_the_picture_follows(lab: Lab) -> None:
    lab.open(BANK, CLUSTER)
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    healthy(lab, "healthy")
    old = page.text_content(LEADER)
    press(lab, "kill")
    said(lab, f"kill {old}: done")
    page.wait_for_function(
        f"old => ![old, 'none'].includes(document.querySelector('{LEADER}').textContent)", arg=old, timeout=PATIENCE_MS
    )
    healthy(lab, "degraded")
    assert page.locator(f'.graft tr[data-node="{old}"]').inner_text().split("\t")[1].strip().endswith("down")
    press(lab, "restart")
    said(lab, f"{old} started again")
    healthy(lab, "healthy")
    press(lab, "add")
    said(lab, "n4 is in")
    page.wait_for_selector('.graft tr[data-node="n4"]', timeout=PATIENCE_MS)
    # A node is chosen by a click on it, or by the keyboard.
    page.click('.graft tr[data-node="n4"]')
    assert page.input_value(".graft select") == "n4"
    press(lab, "transfer")
    said(lab, "n4 leads")
    page.select_option(".graft select", "n1")
    press(lab, "isolate")
    said(lab, "isolate n1: done")
    press(lab, "heal")
    said(lab, "the network is whole")
    press(lab, "snapshot")
    said(lab, "a snapshot covers the log")
    press(lab, "load")
    said(lab, "a stream of commands goes to the cluster")
    press(lab, "load")
    said(lab, "has ended")
    events = page.text_content(".graft ol") or ""
    assert f"{old} was killed" in events


def test_the_past_is_shown_again(lab: Lab) -> None:
    lab.open(BANK, CLUSTER)
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    old = page.text_content(LEADER)
    page.wait_for_function("Number(document.querySelector('.graft input').max) >= 1", timeout=PATIENCE_MS)
    press(lab, "kill")
    healthy(lab, "degraded")
    page.focus(".graft input")
    page.keyboard.press("Home")
    healthy(lab, "healthy")
    assert page.text_content(LEADER) == old
    assert page.is_disabled('.graft button[data-action="kill"]')
    page.keyboard.press("End")
    healthy(lab, "degraded")
    assert page.text_content(".graft output") == "live"


def test_a_client_has_a_view_and_a_closed_cluster_says_so(lab: Lab) -> None:
    lab.open(BANK, CLUSTER[: CLUSTER.index("\n")], "client = graft.Client(cluster['n1'].address, Bank)\nclient")
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    page.wait_for_selector('.graft tr[data-node="n3"]', timeout=PATIENCE_MS)
    assert page.locator('.graft button[data-action="kill"]').count() == 0
    press(lab, "remove")
    said(lab, "choose a member first")
    follower = page.evaluate(
        f"[...document.querySelectorAll('.graft tbody tr')].map(r => r.dataset.node)"
        f".find(id => id !== document.querySelector('{LEADER}').textContent)"
    )
    page.select_option(".graft select", follower)
    press(lab, "demote")
    said(lab, f"demote {follower}: done")


def test_a_browser_that_was_closed_finds_the_cluster_as_it_is(lab: Lab) -> None:
    lab.open(BANK, CLUSTER)
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    old = page.text_content(LEADER)
    press(lab, "kill")
    said(lab, f"kill {old}: done")
    healthy(lab, "degraded")
    lab.reopen()
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    healthy(lab, "degraded")
    assert page.text_content(LEADER) not in (old, "none")
    assert f"{old} was killed" in (page.text_content(".graft ol") or "")
    press(lab, "restart")
    said(lab, f"{old} started again")
    healthy(lab, "healthy")


def test_a_follower_that_hears_nothing_shows_its_timer(lab: Lab) -> None:
    lab.open(BANK, CLUSTER)
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelectorAll('.graft .ring svg path').length === 2", timeout=PATIENCE_MS)


def test_it_reads_well_in_both_themes(lab: Lab) -> None:
    lab.open(BANK, CLUSTER)
    page = lab.page
    page.wait_for_selector(LEADER, timeout=PATIENCE_MS)
    contrast = """() => {
      const style = getComputedStyle(document.querySelector('.graft'));
      const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
      const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05); }"""
    backgrounds = []
    for dark in (False, True):
        lab.dark(dark)
        assert page.evaluate(contrast) > 7
        backgrounds.append(page.evaluate("getComputedStyle(document.querySelector('.graft')).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]
    lab.dark(False)
    # What a screen reader has to say.
    assert "leader" in (page.get_attribute(".graft .ring svg", "aria-label") or "")
    names = page.eval_on_selector_all(
        ".graft button, .graft select, .graft input", "all => all.map(one => one.ariaLabel || one.textContent)"
    )
    assert all(names)
