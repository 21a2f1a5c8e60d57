"""Prompts by a text server: asked by the rules of the video's kind, kept, changed by hand, and never sent elsewhere."""

import json

import pytest

from osjax.errors import UserError
from osjax.sampling import refine, refined
from osjax.sampling.prompts import Request
from osjax.sampling.refine import TextServer
from tests import text_server
from tests.sampling import tiny


def test_a_prompt_is_made_fuller_by_the_rules_of_its_kind():
    with text_server.TextServer(text_server.words) as server:
        options = TextServer(server.url, "small")
        for (frames, given), rule in {(1, False): "t2i", (8, True): "i2v", (8, False): "t2v"}.items():
            assert refine.rule_of(frames, given) == rule
            assert refine.refine(options, "a cat", rule) == "a cat, in soft light"
            asked = server.requests[-1]
            assert asked["messages"][0]["content"] == refine.RULES[rule] and asked["path"] == "/v1/chat/completions"
            assert asked["model"] == "small"
        assert refine.motion(options, "a cat") == 5


@pytest.mark.parametrize("answer", ["none at all", "0.5", "12", ""])
def test_what_is_no_motion_score_is_refused(answer):
    with text_server.TextServer(lambda body: (200, answer)) as server:
        with pytest.raises(UserError, match="give one yourself"):
            refine.motion(TextServer(server.url), "a cat")


def test_a_server_that_fails_or_leads_elsewhere_is_told_in_one_line():
    with text_server.TextServer(lambda body: (500, "broken")) as other:
        for says, match in (
            (lambda body: (400, "too\nlong"), "fails .*too long"),
            (lambda body: (200, None), "has no words"),
            (lambda body: (307, f"{other.url}/chat/completions"), "fails"),
        ):
            with text_server.TextServer(says) as server, pytest.raises(UserError, match=match) as told:
                refine.refine(TextServer(server.url), "a cat", "t2v")
            assert "\n" not in str(told.value)
        assert other.requests == []  # a redirect is not followed
    with pytest.raises(UserError, match="start it"):
        refine.refine(TextServer(server.url, timeout_s=2), "a cat", "t2v")


@pytest.mark.parametrize("url", ["http://evil.example/v1", "https://127.0.0.1.evil.example/v1", "http://10.0.0.1/v1"])
def test_prompts_go_to_another_machine_only_where_it_is_named(url):
    with pytest.raises(UserError, match="another machine"):
        TextServer(url)
    assert TextServer(url, hosts=(url.split("/")[2],)).url == url


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:80", "http://", "http://[x/v1", ""])
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(UserError, match="ending in /v1"):
        TextServer(url)


def test_texts_are_kept_beside_the_samples_where_people_change_them(tmp_path):
    requests = [Request("a cat"), Request("a dog", seed=3)]
    with text_server.TextServer(text_server.words) as server:
        options = TextServer(server.url)
        texts = [one.text for one in refined.read(options, requests, tiny.SETTINGS, tmp_path / "out")]
        assert texts == ["a cat, in soft light", "a dog, in soft light"]
        path = tmp_path / "out" / refined.FILE
        path.write_text(path.read_text().replace("dog, in", "brown dog, in"))
        again = refined.read(options, requests, tiny.SETTINGS, tmp_path / "out")
        assert (again[1].text, again[1].seed, len(server.requests)) == ("a brown dog, in soft light", 3, 2)
        still = refined.read(options, requests[:1], tiny.SETTINGS.changed(frames=1), tmp_path / "out")
        assert still[0].text == texts[0] and len(server.requests) == 3  # other rules ask anew
        assert refined.read(TextServer(), requests, tiny.SETTINGS, tmp_path / "out") == requests
        for wrong in ("[]", "{", '{"t2v": 1}', '{"t2v": {"a cat": ""}}', json.dumps({"t2v": {"a cat": 1}})):
            path.write_text(wrong)
            with pytest.raises(UserError, match="mend it, or remove it"):
                refined.read(options, requests, tiny.SETTINGS, tmp_path / "out")
