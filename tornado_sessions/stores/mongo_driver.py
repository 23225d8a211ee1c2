"""What the store takes from PyMongo, or else how to get PyMongo.

Motor is a coat over PyMongo, so this is all it needs with either. Motor itself is never
imported: who hands in a client of it has done that.
"""

from __future__ import annotations

from tornado_sessions.errors import ConfigurationError

try:
    from bson import encode
    from bson.codec_options import CodecOptions, DatetimeConversion
    from bson.datetime_ms import DatetimeMS
    from bson.errors import BSONError
    from bson.timestamp import Timestamp
    from pymongo import (
        AsyncMongoClient,
        DeleteOne,
        IndexModel,
        InsertOne,
        ReadPreference,
        UpdateOne,
    )
    from pymongo.errors import (
        AutoReconnect,
        BulkWriteError,
        InvalidOperation,
        NetworkTimeout,
        NotPrimaryError,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
        WriteError,
    )
    from pymongo.read_concern import ReadConcern
    from pymongo.uri_parser import parse_uri
except ImportError as error:
    raise ConfigurationError(
        "MongoStore needs PyMongo 4.13.2 or later: "
        'pip install "tornado-sessions[mongo]"'
    ) from error

__all__ = [
    "AsyncMongoClient",
    "AutoReconnect",
    "BSONError",
    "BulkWriteError",
    "CodecOptions",
    "DatetimeConversion",
    "DatetimeMS",
    "DeleteOne",
    "IndexModel",
    "InsertOne",
    "InvalidOperation",
    "NetworkTimeout",
    "NotPrimaryError",
    "OperationFailure",
    "PyMongoError",
    "ReadConcern",
    "ReadPreference",
    "ServerSelectionTimeoutError",
    "Timestamp",
    "UpdateOne",
    "WriteError",
    "encode",
    "parse_uri",
]
