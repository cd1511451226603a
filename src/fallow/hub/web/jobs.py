"""/api/v1/jobs: create, list, show, cancel, delete, results, logs, explain."""

from typing import Annotated, Any
from urllib.parse import quote, unquote

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.enums import MediaType
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK

from fallow.hub.web.given import GivenHub, GivenToken
from fallow.hub.web.json_jobs import check_function, keep_environment, make_pages, make_spec, read_request
from fallow.hub.web.json_programs import check_items, encode, make_program, whole
from fallow.hub.web.outputs import TaskOutputs, read_output, task_outputs
from fallow.hub.web.results import (
    BytesList,
    ResultList,
    read_bytes,
    read_json,
    read_pages,
    stream_json_lines,
)
from fallow.hub.web.views import (
    Explanation,
    JobList,
    JobView,
    LogList,
    RunningList,
    view_job,
    view_log_entry,
    view_running,
)
from fallow.model.errors import BadRequest

MAX_LISTED = 1000
LAST_ENTRIES = 1000
"""Of a log, that can be asked for without reading all of it."""
JSON_LINES = "application/jsonl"
MSGPACK = "application/msgpack"

AnyRequest = Request[Any, Any, Any]
OCTETS = "application/octet-stream"
Index = Annotated[int, PathParameter(ge=0, le=1 << 53, description="The task's index.")]
Ref = Annotated[str, PathParameter(description="The job's id, or its name (`/` in a name is written %2F).")]


def named(request: AnyRequest, job: str) -> str:
    """Return the job's reference as the caller wrote it: a name may hold a slash, which the router must not see."""
    raw: bytes = request.scope.get("raw_path") or b""
    segments = raw.partition(b"?")[0].split(b"/")
    return unquote(segments[4].decode("ascii", "replace")) if len(segments) > 4 else job


@post("/", summary="Create a job over JSON items")
async def create_job(request: AnyRequest, hub: GivenHub, token: GivenToken) -> JobView:
    """Run `function`, importable on the nodes as "module:function", on each of `items`; or `program`, a command with files, with the
    parameters that each of them has.

    The answer comes when the job is durable: it survives the hub's crash.
    """
    data = read_request(await request.body())
    if (data.function is None) == (data.program is None):
        raise BadRequest("the body is no job: it names a function or a program, and not both")
    program = None
    if data.program is not None:
        program = await make_program(hub, data.program, token)
        check_items(program, data.items)
        code = encode(program)
    else:
        check_function(data.function or "")
        code = (data.function or "").encode()
    function, _ = await hub.front.keep_blob(whole(code), token)
    make_spec(data, function, token, program)  # what is wrong is told before packages are looked for
    environment = await keep_environment(hub, data.env, token)
    spec = make_spec(data, function, token, program, environment)
    pages = await make_pages(hub, spec.id, data.items, token)
    return view_job(await hub.front.create_job(spec, pages, token, if_exists=data.if_exists))


@get("/", summary="List jobs")
async def list_jobs(
    hub: GivenHub,
    token: GivenToken,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LISTED, description="At most this many.")] = 100,
    before: Annotated[
        float | None, QueryParameter(description="Only jobs that ended before this Unix time; see `next`.")
    ] = None,
) -> JobList:
    """List your jobs (an admin sees everybody's): the running ones first, then the latest that ended."""
    infos = await hub.front.jobs(token, limit=limit, before=before)
    last = infos[-1].ended_at if len(infos) >= limit else None
    return JobList([view_job(info) for info in infos], last)


@get("/{job:str}", summary="Show a job")
async def show_job(request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken) -> JobView:
    """Show one job and how far it is, with its first failures."""
    return view_job(await hub.front.job(named(request, job), token))


@post("/{job:str}/cancel", status_code=HTTP_200_OK, summary="Cancel a job")
async def cancel_job(request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken) -> JobView:
    """Stop the job's tasks, running ones too. The results that are there stay."""
    ref = named(request, job)
    found = await hub.front.job(ref, token)
    await hub.front.cancel_job(found.spec.id, token)
    return view_job(await hub.front.job(found.spec.id, token))


@delete("/{job:str}", summary="Delete a job")
async def delete_job(request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken) -> None:
    """Cancel the job if it runs, and remove it with all its inputs and results."""
    await hub.front.delete_job(named(request, job), token)


@get(
    "/{job:str}/results",
    summary="Read results",
    responses={
        HTTP_200_OK: ResponseSpec(
            generate_examples=False,
            data_container=ResultList,
            description="Of a JSON job: results by index. With `Accept: application/jsonl`: all of them, one "
            '`{"index": …, "value": …}` or `{"index": …, "error": …}` a line, as a stream. Of a pickled job: '
            "MessagePack of `{pages: [{start, stop, counts, kept, partial, failures, data}], next, state}`, where "
            "`data` is for `fallow.slot.pages.decode`.",
        )
    },
)
async def job_results(
    request: AnyRequest,
    job: Ref,
    hub: GivenHub,
    token: GivenToken,
    start: Annotated[int, QueryParameter(ge=0, description="From this index on.")] = 0,
) -> Response[Any]:
    """Read the results settled so far, about a megabyte at a time. Indices that are not settled yet are left out."""
    info = await hub.front.job(named(request, job), token)
    ref, state = info.spec.id, info.progress.state
    if info.spec.codec == "json" and JSON_LINES in request.headers.get("accept", ""):
        return Stream(stream_json_lines(hub, ref, token, start), media_type=JSON_LINES)
    pages, after = await read_pages(hub, ref, token, start)
    if info.spec.codec == "json":
        body = msgspec.json.encode(ResultList(await read_json(hub, pages), after, state))
        return Response(body, media_type=MediaType.JSON)
    packed = msgspec.msgpack.encode(BytesList(await read_bytes(hub, pages), after, state))
    return Response(packed, media_type=MSGPACK)


@get("/{job:str}/logs", summary="Read what tasks printed")
async def job_logs(
    request: AnyRequest,
    job: Ref,
    hub: GivenHub,
    token: GivenToken,
    after: Annotated[
        int,
        QueryParameter(
            ge=-LAST_ENTRIES,
            le=1 << 53,
            description=f"Leave out so many entries; see `next`. Below 0, down to -{LAST_ENTRIES}: the last so many.",
        ),
    ] = 0,
) -> LogList:
    """Read what the job's tasks printed, in order of arrival. At most 64 KiB a task are kept, and 64 MiB a job."""
    entries, following = await hub.front.logs(named(request, job), token, after=after)
    return LogList([view_log_entry(entry) for entry in entries], following)


@get("/{job:str}/running", summary="List running tasks")
async def running_tasks(request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken) -> RunningList:
    """List the job's tasks that run now, with how far they say they are."""
    return RunningList([view_running(task) for task in await hub.front.running(named(request, job), token)])


@get("/{job:str}/explain", summary="Explain why a job waits")
async def explain_job(request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken) -> Explanation:
    """Say in plain words why the job is where it is."""
    return Explanation(await hub.front.explain(named(request, job), token))


@get("/{job:str}/outputs/{index:int}", summary="List a task's output files")
async def list_outputs(request: AnyRequest, job: Ref, index: Index, hub: GivenHub, token: GivenToken) -> TaskOutputs:
    """Show what a task of a program came to, and name its output files."""
    info = await hub.front.job(named(request, job), token)
    return await task_outputs(hub, info.spec, index, token)


@get(
    "/{job:str}/outputs/{index:int}/{name:path}",
    summary="Read an output file",
    responses={
        HTTP_200_OK: ResponseSpec(
            generate_examples=False, data_container=bytes, media_type=OCTETS, description="The file's bytes."
        )
    },
)
async def job_output(
    request: AnyRequest,
    job: Ref,
    index: Index,
    name: Annotated[str, PathParameter(description='The file\'s name, or "stdout" or "stderr".')],
    hub: GivenHub,
    token: GivenToken,
) -> Stream:
    """Read one file that a task of a program put out."""
    info = await hub.front.job(named(request, job), token)
    path = str(name).lstrip("/")
    chunks, size = await read_output(hub, info.spec, index, path, token)
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}",
    }
    return Stream(chunks, media_type=OCTETS, headers=headers)


def jobs_router() -> Router:
    return Router(
        "/jobs",
        route_handlers=[
            create_job,
            list_jobs,
            show_job,
            cancel_job,
            delete_job,
            job_results,
            job_logs,
            running_tasks,
            explain_job,
            list_outputs,
            job_output,
        ],
        tags=["jobs"],
    )
