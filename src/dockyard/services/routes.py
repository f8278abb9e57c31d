"""The route of a version: what the gateway is told of it."""

from dockyard.domain.deployment import Deployment, Version
from dockyard.protocols.routing import Route, RouteReplica


def route_of(deployment: Deployment, version: Version, replicas: tuple[RouteReplica, ...]) -> Route:
    """With no replicas, requests wait for the first one."""
    return Route(
        deployment_id=deployment.deployment_id,
        model_id=deployment.model_id,
        name=deployment.name,
        version_id=version.version_id,
        version_name=version.name,
        engine=str(version.runtime.engine),
        hyper=version.spec.hyper,
        endpoint_timeout_s=deployment.endpoint_timeout_s,
        created_at=version.deployed_at or version.created_at,
        replicas=replicas,
    )
