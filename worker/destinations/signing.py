"""AWS Signature Version 4 of requests, by `botocore`, which the extra `s3` brings."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from segrelay.worker.contract.settings.authorizations import Authorization


def signed_for_aws(
    authorization: Authorization, method: str, url: str, body: bytes
) -> Mapping[str, str]:
    """Return the headers that sign a request, with the time of now.

    Args:
        authorization: Of the type `aws`; its secrets are set.
        method: The request's.
        url: Absolute; what is signed is what httpx makes of it, because that is sent.
        body: As it is sent.
    """
    # Only those who sign pay for it.
    from botocore.auth import S3SigV4Auth, SigV4Auth  # noqa: PLC0415
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    assert authorization.access_key is not None
    assert authorization.secret_key is not None
    session = authorization.session_token
    credentials = Credentials(
        authorization.access_key.reveal(),
        authorization.secret_key.reveal(),
        session.reveal() if session else None,
    )
    signs = S3SigV4Auth if authorization.service == "s3" else SigV4Auth
    request = AWSRequest(method, str(httpx.URL(url)), data=body)
    signs(credentials, authorization.service, authorization.region).add_auth(request)
    return dict(request.headers)
