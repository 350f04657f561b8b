"""The command line: thin, every command one call into the library. Heavy libraries are imported by the command that
needs them, so that help answers at once."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from terrain3d import __version__
from terrain3d.errors import Terrain3dError

app = typer.Typer(
    name="terrain3d",
    help="Satellite stereo and spaceborne lidar to DSM, DTM and canopy height with an honest sigma, and to change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERTICALS = "ellipsoid, egm96, a geoid grid, or same (as the other's)"
Out = Annotated[Path, typer.Option("--out", help="Folder for the results; made if it is missing.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads; all cores if not given.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only warnings and errors.")]
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"terrain3d {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Version, and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    scene: Annotated[Path, typer.Argument(help="Scene file (YAML): name, images, lidar, output.")],
    out: Out,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Images and lidar to DSM, DTM, canopy height, ortho, cloud and report."""
    from terrain3d.commands.run import run_command

    run_command(scene, out, workers=workers, quiet=quiet)


@app.command()
def batch(
    area: Annotated[Path, typer.Argument(help="Area file (YAML): a scene of any size, and its tiles.")],
    out: Out,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; all cores if not given.")] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0.5, help="Memory of a worker, GB; what needs more fails alone.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.01, help="Minutes that one piece of work may take.")] = 60.0,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, whose workers do it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print and write the plan, and stop.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and stop.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Find anew what is kept while new files agree with it.")
    ] = False,
    by_content: Annotated[
        bool, typer.Option("--by-content", help="Tell changed input files by content, not by size and time.")
    ] = False,
    discard_work: Annotated[
        bool, typer.Option("--discard-work", help="Delete intermediate files once all tiles are done.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """An area of any size to tiles: resumes where it stopped, redoes only what changed. Exit code 3: with failures."""
    from terrain3d.commands.batch import batch_command

    batch_command(
        area, out, workers=workers, memory_gb=memory_limit, minutes=time_limit, scheduler=scheduler, dry_run=dry_run,
        status=status, retry_failed=retry_failed, refresh=refresh, by_content=by_content, discard_work=discard_work,
        quiet=quiet,
    )  # fmt: skip


@app.command()
def change(
    before: Annotated[Path, typer.Argument(help="Folder of a run, or a DSM GeoTIFF: the earlier epoch.")],
    after: Annotated[Path, typer.Argument(help="The later epoch, likewise; with --quick a scene file.")],
    out: Out,
    quick: Annotated[
        bool, typer.Option("--quick", help="Rapid: AFTER is a scene file, its best pair is run at half the resolution.")
    ] = False,
    min_area: Annotated[float, typer.Option(min=1.0, help="Smallest change to report, m2.")] = 25.0,
    min_height: Annotated[float, typer.Option(min=0.1, help="Least height change to report, m.")] = 1.5,
    level: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of the reported changes that may be none.")
    ] = 0.05,
    vertical_before: Annotated[str | None, typer.Option(help=f"Heights before: {VERTICALS}.")] = None,
    vertical_after: Annotated[str | None, typer.Option(help=f"Heights after: {VERTICALS}.")] = None,
    tiles: Annotated[
        str, typer.Option(help="Map tiles to rank: utm-10km, utm-1km, utm-100m, jis-1 to jis-6, or a layer of sheets.")
    ] = "utm-1km",
    sheet_column: Annotated[str | None, typer.Option(help="Column of a layer of sheets that names them.")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """What changed between two epochs: difference, sigma, significance, and polygons with kinds and volumes."""
    from terrain3d.change.result import ChangeOptions
    from terrain3d.change.significance import SignificanceOptions
    from terrain3d.commands.change import change_command
    from terrain3d.pipeline.change_tiles import TileScheme

    options = ChangeOptions(
        min_area=min_area, level=level, test=SignificanceOptions(min_height=min_height),
        vertical_before=vertical_before, vertical_after=vertical_after,
    )  # fmt: skip
    scheme = TileScheme(tiles, sheet_column)
    change_command(before, after, out, options, scheme, quick=quick, workers=workers, quiet=quiet)


@app.command()
def series(
    epochs: Annotated[list[Path], typer.Argument(help="Folders of runs or DSM GeoTIFFs, at least three, in order.")],
    out: Out,
    dates: Annotated[list[str] | None, typer.Option("--date", help="Date of an epoch, once for each.")] = None,
    min_area: Annotated[float, typer.Option(min=1.0, help="Smallest change to report, m2.")] = 25.0,
    min_height: Annotated[float, typer.Option(min=0.1, help="Least height change to report, m.")] = 1.5,
    vertical: Annotated[str | None, typer.Option(help=f"Heights of all epochs: {VERTICALS}.")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """History of more than two epochs: changes of each step, first and last change and rate of every cell."""
    from terrain3d.change.result import ChangeOptions
    from terrain3d.change.significance import SignificanceOptions
    from terrain3d.commands.series import series_command

    options = ChangeOptions(
        min_area=min_area, test=SignificanceOptions(min_height=min_height), vertical_before=vertical,
        vertical_after=vertical,
    )  # fmt: skip
    series_command(epochs, out, options, dates or [], workers=workers, quiet=quiet)


@app.command()
def update(
    old: Annotated[Path, typer.Argument(help="Folder of a run, or a DSM GeoTIFF: the model to bring up to date.")],
    new: Annotated[Path, typer.Argument(help="The later model, likewise.")],
    change: Annotated[Path, typer.Argument(help="Folder of the change from the old to the new one.")],
    out: Out,
    feather: Annotated[float, typer.Option(min=0.0, help="Width of the seam around each change, m.")] = 3.0,
    least_confidence: Annotated[
        float, typer.Option("--min-confidence", min=0.0, max=1.0, help="Take over changes of at least this.")
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """The new DSM and DTM where they changed, the old ones elsewhere, and which cell comes from which."""
    from terrain3d.commands.update import update_command

    update_command(old, new, change, out, feather=feather, least_confidence=least_confidence, quiet=quiet)


@app.command()
def m3c2(
    before: Annotated[Path, typer.Argument(help="LAS or LAZ cloud, or the folder of a run: the earlier epoch.")],
    after: Annotated[Path, typer.Argument(help="The later epoch, likewise.")],
    out: Annotated[Path, typer.Option("--out", help="File for the distances: .gpkg or .csv.")],
    core: Annotated[Path | None, typer.Option(help="Core points: cloud, point layer, or text with x, y, z.")] = None,
    change: Annotated[Path | None, typer.Option(help="Folder of a change, for its co-registration.")] = None,
    normal_radius: Annotated[float | None, typer.Option(min=0.0, help="Radius for the normals.")] = None,
    cylinder_radius: Annotated[float | None, typer.Option(min=0.0, help="Radius of the cylinders.")] = None,
    half_length: Annotated[float | None, typer.Option(min=0.0, help="Half length of the cylinders.")] = None,
    registration: Annotated[float | None, typer.Option(min=0.0, help="1-sigma of the co-registration.")] = None,
    file_units: Annotated[bool, typer.Option("--file-units", help="Lengths as in the file, not in metres.")] = False,
    quiet: Quiet = False,
) -> None:
    """Distances between two clouds along local normals (M3C2), right on cliffs, banks and facades too."""
    from terrain3d.commands.m3c2 import m3c2_command
    from terrain3d.pipeline.m3c2 import M3C2Request

    request = M3C2Request(
        before, after, out, core, change, normal_radius, cylinder_radius, half_length, registration, file_units
    )
    m3c2_command(request, quiet=quiet)


@app.command()
def register(
    surface: Annotated[Path, typer.Argument(help="DSM GeoTIFF from anywhere, or the folder of a run (DSM and DTM).")],
    lidar: Annotated[list[str], typer.Argument(help="Lidar: ICESat-2 and GEDI granules, SlideRule; patterns allowed.")],
    out: Out,
    rules: Annotated[str, typer.Option(help="Quality rules for the returns: strict, standard or all.")] = "standard",
    vertical: Annotated[
        str | None, typer.Option(help="Of heights that declare none: ellipsoid, egm96, a grid.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """A surface from anywhere, shifted and levelled onto lidar ground returns, checked on tracks held out."""
    from terrain3d.commands.register import register_command

    register_command(surface, lidar, out, rules=rules, vertical=vertical, quiet=quiet)


@app.command()
def assess(
    estimate: Annotated[Path, typer.Argument(help="Height raster, or the folder of a run.")],
    reference: Annotated[Path, typer.Argument(help="Reference height raster, or the folder of a run.")],
    classes: Annotated[Path | None, typer.Option(help="Raster of ASPRS classes on the reference's area.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Accuracy of a surface against a reference: completeness, bias, NMAD, RMSE, LE90, remaining offset."""
    from terrain3d.commands.assess import assess_command

    assess_command(estimate, reference, classes, json)


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(help="Images, rasters, clouds, lidar, tables, run folders.")],
) -> None:
    """What a file is: size, camera, angles, reference, extent, returns."""
    from terrain3d.commands.info import info_command

    info_command(files)


@app.command()
def ground(
    cloud: Annotated[Path, typer.Argument(help="LAS or LAZ cloud, or a text table of x, y, z.")],
    out: Annotated[Path, typer.Option("--out", help="Cloud to write: .laz or .las; .txt for a table.")],
    crs: Annotated[str | None, typer.Option(help="CRS of a cloud that declares none, such as EPSG:32631.")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Classify the points of a cloud: 2 ground, 1 other; all else stays as it is."""
    from terrain3d.commands.clouds import ground_command

    ground_command(cloud, out, crs=crs, workers=workers, quiet=quiet)


@app.command()
def dsm(
    cloud: Annotated[Path, typer.Argument(help="LAS or LAZ cloud, or a text table of x, y, z.")],
    out: Out,
    resolution: Annotated[list[float] | None, typer.Option(help="Cell size, metres; 0.5. Several: subfolders.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a cloud that declares none, such as EPSG:32631.")] = None,
    vertical: Annotated[str | None, typer.Option(help="Of such a cloud's heights: ellipsoid, egm96, a grid.")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Surface model of a point cloud, with sigma and mask."""
    from terrain3d.commands.clouds import dsm_command

    dsm_command(cloud, out, resolution=resolution, crs=crs, vertical=vertical, workers=workers, quiet=quiet)


@app.command()
def dtm(
    source: Annotated[Path, typer.Argument(help="Cloud as for ground, a DSM GeoTIFF, or the folder of a run.")],
    out: Out,
    resolution: Annotated[list[float] | None, typer.Option(help="As for dsm, of a cloud.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a cloud that declares none, such as EPSG:32631.")] = None,
    vertical: Annotated[str | None, typer.Option(help="Of such a cloud's heights: ellipsoid, egm96, a grid.")] = None,
    classified: Annotated[bool, typer.Option("--classified", help="Take the cloud's class 2, filter nothing.")] = False,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Terrain model of a cloud or of a surface model, with sigma, and the height above ground."""
    from terrain3d.commands.clouds import dtm_command

    dtm_command(
        source, out, resolution=resolution, crs=crs, vertical=vertical, classified=classified, workers=workers,
        quiet=quiet,
    )  # fmt: skip


@app.command()
def profile(
    rasters: Annotated[list[Path], typer.Argument(help="Height rasters, or folders of runs.")],
    line: Annotated[str, typer.Option(help="Vector file with one line, or 'x,y x,y ...' in the first raster's CRS.")],
    out: Out,
    step: Annotated[float | None, typer.Option(min=0.001, help="Metres between points; the cell size.")] = None,
    spacing: Annotated[float | None, typer.Option(min=0.01, help="Metres between cross sections; none.")] = None,
    width: Annotated[float, typer.Option(min=0.01, help="Of the cross sections, metres.")] = 40.0,
    quiet: Quiet = False,
) -> None:
    """Long and cross sections of height rasters along a line: table, drawings, lines."""
    from terrain3d.commands.profile import profile_command

    profile_command(rasters, line, out, step=step, spacing=spacing, width=width, quiet=quiet)


@app.command()
def volume(
    first: Annotated[Path, typer.Argument(help="Height raster, or the folder of a run (its DSM): as it was.")],
    second: Annotated[Path | None, typer.Argument(help="As it is now, or as designed.")] = None,
    polygons: Annotated[Path, typer.Option(help="Vector file with polygons.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option("--out", help="GeoPackage to write.")] = ...,  # type: ignore[assignment]
    plane: Annotated[float | None, typer.Option(help="Height to compare with instead, metres.")] = None,
    sigma: Annotated[float | None, typer.Option(min=0, help="1-sigma where no X_sigma.tif is, metres.")] = None,
    common: Annotated[float, typer.Option(min=0, help="1-sigma that all cells share (registration), metres.")] = 0.0,
    correlation: Annotated[float, typer.Option(min=0.1, help="Range of correlated errors, metres.")] = 40.0,
    quiet: Quiet = False,
) -> None:
    """Cut and fill between two surfaces, or to a plane, inside polygons, with sigma."""
    from terrain3d.commands.volume import volume_command

    volume_command(
        first, second, polygons, out, plane=plane, sigma=sigma, common=common, correlation=correlation, quiet=quiet
    )


@app.command()
def derive(
    dtm: Annotated[Path, typer.Argument(help="Terrain raster, or the folder of a run.")],
    out: Out,
    only: Annotated[list[str] | None, typer.Option(help="slope, aspect, hillshade, contours, hydro; all.")] = None,
    interval: Annotated[float, typer.Option(min=0.001, help="Of contours, metres.")] = 1.0,
    index: Annotated[int, typer.Option(min=1, help="Every so many is an index contour.")] = 5,
    smooth: Annotated[float, typer.Option(min=0, max=100, help="Gaussian before contours, metres.")] = 0.0,
    azimuth: Annotated[float, typer.Option(min=0, max=360, help="Of the hillshade's sun, degrees.")] = 315.0,
    elevation: Annotated[float, typer.Option(min=0, max=90, help="Of the hillshade's sun, degrees.")] = 45.0,
    breach_length: Annotated[float, typer.Option(min=0, max=500, help="Longest cut through a dam, metres.")] = 50.0,
    breach_depth: Annotated[float, typer.Option(min=0, help="Deepest cut, metres.")] = 5.0,
    quiet: Quiet = False,
) -> None:
    """Slope, aspect, hillshade, contours, and a terrain without depressions for flood models."""
    from terrain3d.commands.derive import derive_command

    derive_command(
        dtm, out, only=only, interval=interval, index=index, smooth=smooth, azimuth=azimuth, elevation=elevation,
        breach_length=breach_length, breach_depth=breach_depth, quiet=quiet,
    )  # fmt: skip


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the scene and its results.")] = Path("demo_out"),
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Make a small town with its satellite images and lidar, run it, and compare with the truth."""
    from terrain3d.commands.demo import demo_command

    demo_command(out, workers=workers, quiet=quiet)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: 0 done, 2 wrong input or configuration (one line), 3 done with failures, 1 anything else."""
    if arguments is None:
        _prepare_process()
    try:
        app(args=arguments, standalone_mode=True)
    except Terrain3dError as error:
        _complain(str(error))
        sys.exit(2)
    except MemoryError:
        _complain("out of memory; use fewer --workers or a smaller scene")
        sys.exit(1)
    except SystemExit as done:
        if done.code != 130:  # what typer makes of Ctrl-C, without a word
            raise
        _complain("interrupted")
        sys.exit(1)
    except Exception as error:
        if os.environ.get("TERRAIN3D_DEBUG"):
            raise
        text = " ".join(str(error).split())
        _complain(f"unexpected {type(error).__name__}: {text}; set TERRAIN3D_DEBUG=1 for the traceback and report it")
        sys.exit(1)


def _prepare_process() -> None:
    """A process that is asked to end tidies up as after Ctrl-C; without terminal and streams it works, too. Threads of
    the program fill the machine: those of linear algebra would only wait for each other, a third of all CPU time of a
    run on 16 cores, and the last bits of results would depend on the number of cores."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in BLAS_THREADS:  # read when numpy and scipy are loaded
        os.environ.setdefault(name, "1")
    _find_room_for_compiled()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
    if "" in sys.argv[1:]:
        _complain("an argument is empty: a variable that is not set? leave it out or fill it")
        sys.exit(2)


def _find_room_for_compiled() -> None:
    """Numba keeps compiled functions beside the program or in the user's cache, and refuses to work where it can write
    neither, as in many containers: there they are kept while this process lasts."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        cache = Path("/")
    # unlike Path.exists, os.path.exists takes what cannot be entered, such as another user's home, for none
    found = next(p for p in (cache, *cache.absolute().parents) if os.path.exists(p))  # noqa: PTH110
    places = (Path(__file__).parent, found)
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in places):
        return
    import atexit
    import shutil
    import tempfile

    os.environ["NUMBA_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="terrain3d-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _complain(text: str) -> None:
    sys.stderr.write(f"terrain3d: {text}\n")


if __name__ == "__main__":
    main()
