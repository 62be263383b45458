#!/usr/bin/env python3
"""Writes `sigv4.json`: requests to AWS as botocore signs them. `--check` compares instead.

Everything in it is made up, but for the credentials of the first rows, which are those of AWS's own test suite
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
"""

import datetime
import json
import sys
from pathlib import Path
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FILE = Path(__file__).resolve().parent / "sigv4.json"
SUITE = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
OURS = {"access_key_id": "AKIAMADEUPEXAMPLE234", "secret_access_key": "MadeUp0000/KeymoatTest+SecretAccessKey12"}
THEIRS = {"host": "example.amazonaws.com", "region": "us-east-1", "service": "service", "time": "20150830T123600Z"}
STS = {"host": "sts.amazonaws.com", "region": "us-east-1", "service": "sts", "time": "20261122T100000Z"}
CALL = "/?Action=GetCallerIdentity&Version=2011-06-15"
ROWS = [
    {"method": "GET", "target": "/", "body": "", **THEIRS, **SUITE},
    {"method": "GET", "target": "/?Param2=value2&Param1=value1", "body": "", **THEIRS, **SUITE},
    {"method": "GET", "target": "/?Param1", "body": "", **THEIRS, **SUITE},
    {"method": "GET", "target": CALL, "body": "", **STS, **OURS},
    {"method": "GET", "target": CALL, "body": "", **STS, **OURS, "session_token": "MadeUp0000KeymoatTestSessionToken/+=="},
    {"method": "POST", "target": "/", "body": CALL[2:], **STS, **OURS},
    {
        "method": "GET",
        "target": CALL,
        "body": "",
        **STS,
        **OURS,
        "host": "sts.cn-north-1.amazonaws.com.cn",
        "region": "cn-north-1",
    },
]


def signed(row):
    credentials = Credentials(row["access_key_id"], row["secret_access_key"], row.get("session_token"))
    request = AWSRequest(row["method"], f"https://{row['host']}{row['target']}", data=row["body"].encode() or None)
    time = datetime.datetime.strptime(row["time"], "%Y%m%dT%H%M%SZ")
    names = [name for name in ("get_current_datetime", "datetime") if hasattr(auth, name)]
    with mock.patch.object(auth, names[0]) as clock:
        (clock if names[0] == "get_current_datetime" else clock.datetime.utcnow).return_value = time
        auth.SigV4Auth(credentials, row["service"], row["region"]).add_auth(request)
    return request.headers["Authorization"]


def main():
    rows = [{**row, "authorization": signed(row)} for row in ROWS]
    if "--check" in sys.argv:
        assert json.loads(FILE.read_text()) == rows, "sigv4.json is not what botocore signs"
        print(f"{len(rows)} signatures agree")
    else:
        FILE.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
