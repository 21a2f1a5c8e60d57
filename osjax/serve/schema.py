"""Requests and answers: the fields of OpenAI's videos API, and ours beside them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from osjax.data import plain_text

Text = Annotated[str, StringConstraints(max_length=100_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Asked(BaseModel):
    """The base of all requests: an unknown field is refused by name."""

    model_config = ConfigDict(extra="forbid")


class CreateRequest(Asked):
    """A video to make. Fields of OpenAI's API first, then ours, which all have the model's own defaults.

    size: width x height in pixels. seconds: taken to the next number of frames that the model can make; or frames.
    seed: drawn where it is left out. priority: higher ones go first. samples: videos of this prompt, with seeds that
    count up; the answer is the first, whose `siblings` are the others. lora: adapters that are served. refine, and
    motion where it is "auto": the server's text model writes a fuller prompt, and says how much moves.
    """

    prompt: Text
    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    seconds: Annotated[Finite, Field(gt=0, le=3600)] | None = None
    size: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    mode: Annotated[str, StringConstraints(max_length=40)] | None = None
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    solver: Annotated[str, StringConstraints(max_length=40)] | None = None
    guidance: Annotated[Finite, Field(ge=0, le=1000)] | None = None
    guidance_img: Annotated[Finite, Field(ge=0, le=1000)] | None = None
    motion: Annotated[int, Field(ge=0, le=1000)] | Literal["auto"] | None = None
    lora: Annotated[str, StringConstraints(max_length=100)] | None = None
    refine: bool = False
    negative: Text | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    samples: Annotated[int, Field(ge=1, le=16)] = 1


class ExtendRequest(Asked):
    """A video to make longer. seconds: that are added to it. model: for a file; a video of this server has its own.

    seed, steps: ours; the seed is drawn where it is left out, steps are those of the video or of the model.
    """

    prompt: Text
    seconds: Annotated[Finite, Field(gt=0, le=3600)]
    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None


class RefineRequest(Asked):
    """A prompt to make fuller. given: whether images or clips come with it. still: whether one frame is made."""

    prompt: Text
    given: bool = False
    still: bool = False


class Refined(BaseModel):
    """A fuller prompt, and the motion score that fits it."""

    prompt: str
    motion: int


class RemixRequest(Asked):
    """Another prompt for what a video was made of."""

    prompt: Text


class VideoError(BaseModel):
    """Why a video failed. code: a word for programs. message: a line for people."""

    code: str
    message: str


class VideoAnswer(BaseModel):
    """A video. What OpenAI's API has, then ours.

    place: in the queue, 1 is next. step, steps: of the sampler. seconds_left: measured on videos of this size.
    settings: all that it is made with; together with the prompt they make it again. asked_prompt: where `prompt` was
    refined from it. seams: seconds at which the windows
    of a video that was made longer begin. longer_of: the video that it goes on from.
    """

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    prompt: str
    seconds: str
    size: str
    error: VideoError | None = None
    remixed_from_video_id: str | None = None
    mode: str
    frames: int
    seed: int
    place: int | None = None
    step: int | None = None
    steps: int
    seconds_left: float | None = None
    priority: int = 0
    siblings: list[str] = []
    lora: str | None = None
    asked_prompt: str | None = None
    seams: list[float] = []
    longer_of: str | None = None
    settings: dict[str, Any]


class VideoList(BaseModel):
    """A page of videos. last_id: what to give as `after` for the next one."""

    object: Literal["list"] = "list"
    data: list[VideoAnswer]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Deleted(BaseModel):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class ModelAnswer(BaseModel):
    """A model that is served.

    defaults: what it makes where nothing is asked for. modes: what it takes. loras: adapters that it may be given.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "osjax"
    defaults: dict[str, Any]
    modes: list[str]
    loras: list[str] = []


class ModelList(BaseModel):
    """All models that are served. refines: whether prompts are made fuller here."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]
    refines: bool = False


class ErrorBody(BaseModel):
    """What is wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer of 400 and above."""

    error: ErrorBody


def told(text: str, name: str, limit: int) -> str:
    """A client's text, as prompts are held here. name: of its field. limit: characters of it.

    ValueError that says what is wrong.
    """
    if len(text) > limit:
        raise ValueError(f"{name} has {len(text)} characters, {limit} at most are read: shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is not valid Unicode: mend it") from error
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        raise ValueError(f"{name} holds control characters: leave them out")
    return plain_text.caption(text)
