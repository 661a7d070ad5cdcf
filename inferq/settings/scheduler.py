"""The settings of the scheduler, by the names that users of FastDeploy know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from inferq.settings.redis_url import parse_redis_url

SchedulerName = Literal["local", "global", "splitwise"]
Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class SchedulerSettings(BaseModel):
    """Which scheduler, where its Redis is, and how long it remembers."""

    scheduler_name: SchedulerName = Field("local", description="local, global or splitwise")
    scheduler_max_size: int = Field(
        -1, ge=-1, description="Most requests held (local); -1 or 0: no bound"
    )
    scheduler_ttl: int = Field(900, ge=1, description="Longest life of a request, seconds")
    scheduler_host: str = Field("127.0.0.1", min_length=1, description="Redis host")
    scheduler_port: int = Field(6379, ge=1, le=65535, description="Redis port")
    scheduler_db: int = Field(0, ge=0, description="Redis database")
    scheduler_password: str = Field("", repr=False, description="Redis password, never printed")
    scheduler_url: str = Field(
        "",
        repr=False,
        pattern=r"^$|^(rediss?|unix)://.+",
        description="Redis as one URL (redis, rediss, unix) instead of the four; never printed",
    )
    scheduler_topic: Topic = Field(
        "default", description="Nodes exchange work within one topic only"
    )
    scheduler_min_load_score: float = Field(
        3, ge=0, allow_inf_nan=False, description="A node loaded above this may be stolen from"
    )
    scheduler_load_shards_num: int = Field(1, ge=1, description="Shards of the load table")
    scheduler_sync_period: int = Field(
        5, ge=1, description="Period of a node's full load report, seconds"
    )
    scheduler_expire_period: int = Field(
        3000, ge=1, description="A node's record is forgotten after this, seconds"
    )
    scheduler_release_load_expire_period: int = Field(
        600, ge=1, description="Load of a request that never finished is released after, seconds"
    )
    scheduler_reader_parallel: int = Field(4, ge=1, description="Output readers of an origin")
    scheduler_writer_parallel: int = Field(4, ge=1, description="Output writers of a node")
    scheduler_reader_batch_size: int = Field(
        200, ge=1, description="Most outputs read in one Redis call"
    )
    scheduler_writer_batch_size: int = Field(
        200, ge=1, description="Most outputs written in one Redis call"
    )

    @field_validator("scheduler_url")
    @classmethod
    def _is_redis_url(cls, url: str) -> str:
        if url:
            parse_redis_url(url)
        return url
