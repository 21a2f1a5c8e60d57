"""Prompts made fuller by a text model behind any server that speaks OpenAI's chat protocol, and how much should move.

Video models are trained on long captions, and people write short prompts. Off unless somebody names a server. Prompts
leave this machine only for hosts that are listed: a server elsewhere is refused, and no redirect is followed.
Source: Open-Sora 2.0 refines prompts of three kinds and lets the model choose a motion score; the rules are our own.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from osjax.curation.isolate import need
from osjax.data import plain_text
from osjax.errors import UserError

COMMON = """Keep everything the writer asks for and contradict none of it. Say only what an eye can see: no sounds,
no thoughts, no lettering unless it is asked for, no names of people who are not named. Write one paragraph of plain
English in the present tense, 60 to 120 words. Answer with that paragraph alone."""
RULES = {
    "t2v": f"""You turn a short idea into a description of a video clip of a few seconds. Begin with the subject and how
it looks, tell what it does from the first moment to the last, then the place around it, the light, the framing and
movement of the camera, and the style of the footage. {COMMON}""",
    "i2v": f"""You turn a short idea into a description of how a video clip goes on from a picture that is given and
that you do not see. Tell what moves and how, in order, and what the camera does. Add nothing to the look of people,
things and places beyond the writer's words: the picture shows them. {COMMON}""",
    "t2i": f"""You turn a short idea into a description of a single picture, in which nothing moves. Begin with the
subject and its details, then where things stand in the frame, the background, the light, the colours and the style.
{COMMON}""",
}
MOTION = """How much moves in the video that the writer describes? 1 is a still scene, 4 is what people do at an
ordinary pace, 7 is the fastest action or camera. Answer with one digit from 1 to 7 and nothing else."""
BASE = "give the server's base, ending in /v1"
LONGEST = 4000  # characters of an answer


@dataclass(frozen=True)
class TextServer:
    """Which server refines prompts, and how it is asked.

    url: its base, such as http://127.0.0.1:8080/v1; None refines nothing. model: the name that it knows its model by.
    hosts: names of other machines that prompts may go to. key_variable: the environment variable with its key.
    timeout_s: of a request. tokens: of an answer.
    """

    url: str | None = None
    model: str = "default"
    hosts: tuple[str, ...] = ()
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 60.0
    tokens: int = 600

    def __post_init__(self):
        for name in ("timeout_s", "tokens"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: give more than 0")
        if self.url is None:
            for one in fields(self):
                if getattr(self, one.name) != one.default:
                    raise UserError(f"{one.name} is read where url names a text server: give it, or leave this out")
            return
        try:
            parts = urlsplit(self.url)
            host = parts.hostname or ""
        except ValueError as error:
            raise UserError(
                f"url {self.url[:200]!r} is none ({error}): give the server's base, ending in /v1"
            ) from error
        if parts.scheme not in ("http", "https") or not host:
            raise UserError(f"url {self.url[:200]!r} is not http:// or https://: give the server's base, ending in /v1")
        if not is_loopback(host) and host not in self.hosts:
            raise UserError(f"prompts would go to {host}, another machine: name it under hosts where that is meant")


def is_loopback(host: str) -> bool:
    """Whether a host's name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def rule_of(frames: int, given: bool) -> str:
    """The key of `RULES` for a video. frames: of it. given: whether it goes on from images or clips."""
    return "t2i" if frames == 1 else "i2v" if given else "t2v"


def refine(server: TextServer, prompt: str, rule: str) -> str:
    """A fuller text for a prompt.

    server: which is asked. prompt: what somebody wrote. rule: a key of `RULES`. UserError where the server fails or
    says nothing.
    """
    text = plain_text.caption(_ask(server, RULES[rule], prompt).strip().strip('"'))
    if not text:
        raise UserError(f"the text server {server.url} has no words for the prompt: try again, or go on without it")
    return text


def motion(server: TextServer, prompt: str) -> int:
    """The motion score, 1 to 7, that fits a prompt.

    server: which is asked. prompt: what the video shows. UserError where the server fails or says no number.
    """
    answer = _ask(server, MOTION, prompt)
    digit = re.search(r"(?<![\d.])[1-7](?!\d)", answer)
    if digit is None:
        raise UserError(f"the text server {server.url} says {answer[:80]!r} for a motion score: give one yourself")
    return int(digit[0])


def _ask(server: TextServer, rules: str, prompt: str) -> str:
    openai = need("openai", "refine")
    local = is_loopback(urlsplit(server.url or "").hostname or "")
    http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=not local)  # no proxy sees what stays here
    key = os.environ.get(server.key_variable) or "none"  # local servers ask for no key
    options = {"base_url": server.url, "api_key": key, "timeout": server.timeout_s, "max_retries": 1}
    with openai.OpenAI(**options, http_client=http) as client:
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": prompt}]
        try:
            answer = client.chat.completions.create(
                model=server.model, messages=messages, max_tokens=server.tokens, temperature=0.3
            )
            text = answer.choices[0].message.content or ""
        except openai.OpenAIError as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"the text server {server.url} fails ({why}): start it, or go on without it") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{server.url} does not speak OpenAI's chat protocol: give its base, ending in /v1"
            ) from error
    text = text.rpartition("</think>")[2]  # of models that think aloud first
    return "".join(c for c in text[:LONGEST] if c.isprintable() or c in "\n\t ")
