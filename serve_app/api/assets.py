"""`/v1/assets`: files sent ahead, to be used by id in any number of requests."""

from __future__ import annotations

import time
from uuid import uuid4

from fastapi import APIRouter, Request

from serve_app.api.auth import Owner
from serve_app.api.errors import ApiError
from serve_app.api.inputs import Checked, Intake, Kind, is_picture
from serve_app.api.schemas import AssetAnswer, AssetList, AssetRequest, Deleted, show_asset
from serve_app.api.services import Door, Services
from serve_app.api.submit import parse
from serve_app.api.take import body_of, take
from serve_app.api.uploads import Form
from serve_app.jobs.records import Asset

router = APIRouter(prefix="/v1", tags=["assets"])


@router.post("/assets", openapi_extra=body_of("AssetRequest", ("file",)))
async def create_asset(request: Request, services: Door, owner: Owner) -> AssetAnswer:
    """Store a video, a sound or a picture."""
    return show_asset(await take(request, services, keep, owner))


@router.get("/assets")
def list_assets(services: Door, owner: Owner) -> AssetList:
    """All assets of the caller."""
    return AssetList(data=[show_asset(asset) for asset in services.jobs.assets(owner)])


@router.get("/assets/{asset_id}")
def get_asset(asset_id: str, services: Door, owner: Owner) -> AssetAnswer:
    """One asset."""
    return show_asset(services.jobs.asset(asset_id, owner))


@router.delete("/assets/{asset_id}")
def delete_asset(asset_id: str, services: Door, owner: Owner) -> Deleted:
    """Forget an asset. Its file goes once no job uses it."""
    services.jobs.delete_asset(asset_id, owner)
    return Deleted(id=asset_id, object="asset.deleted")


def keep(services: Services, form: Form, owner: str) -> Asset:
    """Check and store a file. Blocking. Raises ApiError; nothing stays then."""
    asked = parse(AssetRequest, form)
    intake = Intake(services, owner, form)
    path = intake.locate(asked.file, "file")
    item, kind = recognise(intake, asked, path_is_picture=is_picture(path))
    intake.check_no_extra()
    upload = form.files.get("file")
    name = upload.filename if upload else (asked.file.url or asked.file.file_id or "")[:200]
    asset = Asset(f"asset_{uuid4().hex}", owner, item.key, kind, name, path.stat().st_size, time.time())
    intake.store([item])
    try:
        services.jobs.add_asset(asset)
    except BaseException:
        intake.take_back()
        raise
    return asset


def recognise(intake: Intake, asked: AssetRequest, path_is_picture: bool) -> tuple[Checked, Kind]:
    """The file as what the caller says, or as the first of picture, video and sound that it is."""
    if asked.kind is not None:
        return intake.check(asked.file, asked.kind, "file"), asked.kind
    if path_is_picture:
        return intake.check(asked.file, "image", "file"), "image"
    try:
        return intake.check(asked.file, "video", "file"), "video"
    except ApiError as refusal:
        try:
            return intake.check(asked.file, "audio", "file"), "audio"
        except ApiError:
            raise refusal from None
