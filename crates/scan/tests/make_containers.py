"""Makes the files in `containers/`: one planted, made-up token in every kind of container.

    python3 make_containers.py [postgres://…]

Everything is made by the program that usually makes it, as far as this machine has it; with the address of a PostgreSQL
server the dumps are made anew, too (`pg_dump` of version 15 writes format 1.14).
"""

import bz2
import gzip
import io
import json
import lzma
import pathlib
import py_compile
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from email.message import EmailMessage

HERE = pathlib.Path(__file__).parent / "containers"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
EPOCH = (2026, 1, 1, 0, 0, 0)


def token():
    body = "MadeUpForTests0fKeym0atX2b9Qw7"
    rest, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        check, rest = ALPHABET[rest % 62] + check, rest // 62
    return "ghp_" + body + check


TOKEN = token()
LINE = f"first line\nthe token is {TOKEN} and nothing else\n"


def write(name, data):
    (HERE / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def zipped(members, method=zipfile.ZIP_DEFLATED, streamed=False):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise io.UnsupportedOperation

        def tell(self):
            raise io.UnsupportedOperation

    out = Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, method)
    return out.getvalue()


def tarred(members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members.items():
            data = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tool(*command, data=LINE.encode()):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def packed():
    write("log.gz", gzip.compress(LINE.encode(), mtime=0))
    # Rotated logs are often put one behind the other.
    write("logs.gz", gzip.compress(b"x\n" * 10, mtime=0) + gzip.compress(LINE.encode(), mtime=0))
    write("log.bz2", bz2.compress(LINE.encode()))
    write("log.xz", lzma.compress(LINE.encode()))
    write("log.zst", tool("zstd", "-19", "-c"))
    write("log.lz4", tool("lz4", "-c"))
    write("cut.gz", gzip.compress(LINE.encode() + bytes(range(256)) * 400, mtime=0)[:-200])


def archives():
    long = "a-long-name/" * 20 + "c.env"
    write("a.tar", tarred({"empty": "", "b/c.env": LINE}))
    write("a.tar.gz", gzip.compress(tarred({"b/c.env": LINE}), mtime=0))
    write("gnu.tar", tarred({long: LINE}, tarfile.GNU_FORMAT))
    write("pax.tar", tarred({long: LINE}))
    write("a.zip", zipped({"b/": "", "b/c.env": LINE}))
    write("streamed.zip", zipped({"x.txt": "x" * 100, "c.env": LINE}, streamed=True))
    write("stored-streamed.zip", zipped({"x.txt": "PK PK PK", "c.env": LINE}, zipfile.ZIP_STORED, True))
    write("bzip2.zip", zipped({"c.env": LINE}, zipfile.ZIP_BZIP2))
    inner = gzip.compress(tarred({"c.env": LINE}), mtime=0)
    write("nested.zip", zipped({"in/d.zip": zipped({"b.tar.gz": inner})}))
    layer = tarred({"app/.env": LINE})
    other = gzip.compress(tarred({"app/settings.py": "DEBUG = True\n"}), mtime=0)
    config = json.dumps({"config": {"Env": ["PATH=/bin", f"GITHUB_TOKEN={TOKEN}"]}})
    manifest = json.dumps([{"Config": "blobs/sha256/c0", "Layers": ["blobs/sha256/a1", "blobs/sha256/b2"]}])
    write("image.tar", tarred({
        "blobs/sha256/a1": layer, "blobs/sha256/b2": other, "blobs/sha256/c0": config, "manifest.json": manifest,
    }))


def documents():
    head, tail = TOKEN[:6], TOKEN[6:]
    runs = f'<w:p><w:r><w:t>key {head}</w:t></w:r><w:r><w:rPr><w:b/></w:rPr><w:t xml:space="preserve">{tail}</w:t></w:r></w:p>'
    types = '<?xml version="1.0"?><Types/>'
    write("letter.docx", zipped({"[Content_Types].xml": types, "word/document.xml": f"<w:document><w:body>{runs}</w:body></w:document>"}))
    shared = f"<sst><si><t>x</t></si><si><r><t>{head}</t></r><r><t>{tail}</t></r></si></sst>"
    write("keys.xlsx", zipped({"[Content_Types].xml": types, "xl/sharedStrings.xml": shared}))
    write("letter.odt", zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": f"<office:text><text:p>key <text:span>{head}</text:span>{tail}</text:p></office:text>"}))
    stream = zlib.compress(f"BT /F1 12 Tf 72 720 Td [(key {head[:3]}) -20 ({head[3:]})] TJ ({tail}) Tj ET".encode())
    write("letter.pdf", b"%PDF-1.4\n1 0 obj\n<< /Length " + str(len(stream)).encode()
          + b" /Filter /FlateDecode >>\nstream\n" + stream + b"\nendstream\nendobj\n%%EOF\n")
    cell = {"cell_type": "code", "source": ["import os\n"], "outputs": [{"output_type": "stream", "text": ["ok\n", f"{TOKEN}\n"]}]}
    write("shop.ipynb", json.dumps({"cells": [{"cell_type": "markdown", "source": "# Shop"}, cell], "metadata": {}, "nbformat": 4}))
    with tempfile.TemporaryDirectory() as place:
        source = pathlib.Path(place) / "settings.py"
        source.write_text(f'GITHUB = "{TOKEN}"\nrest = "rest"\n')
        write("settings.pyc", pathlib.Path(py_compile.compile(str(source), str(source) + "c")).read_bytes())
    write("utf16.txt", LINE.encode("utf-16"))
    write("utf16-no-mark.txt", (LINE * 3).encode("utf-16-be"))
    write("program.bin", b"\x7fELF\x02\x01\x01\x00" + bytes(200) + f"token={TOKEN}\0".encode() + bytes(100))


def mail():
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.test", "b@example.test", "Key"
    message["Date"], message["Message-ID"] = "Thu, 01 Jan 2026 00:00:00 +0000", "<1@example.test>"
    message.set_content(f"See the attachment\n")
    message.add_attachment(gzip.compress(LINE.encode(), mtime=0), maintype="application", subtype="gzip", filename="log.gz")
    message.set_boundary("keymoat-boundary")
    write("attachment.eml", message.as_bytes())
    quoted = EmailMessage()
    for name in ("From", "To", "Subject", "Date", "Message-ID"):
        quoted[name] = message[name]
    quoted.set_content("x" * 60 + f" ä {TOKEN}\n", cte="quoted-printable")
    write("quoted.eml", quoted.as_bytes())
    write("archive.mbox", b"From a@example.test Thu Jan  1 00:00:00 2026\n" + quoted.as_bytes()
          + b"\nFrom a@example.test Thu Jan  1 00:00:01 2026\n" + message.as_bytes() + b"\n")
    chat = [{"type": "message", "user": "U1", "text": f"here it is: {TOKEN}", "ts": "1767225600.0"}]
    write("chat.zip", zipped({"users.json": "[]", "general/2026-01-01.json": json.dumps(chat)}))


TABLES = f"""
CREATE TABLE ir_config_parameter (id integer PRIMARY KEY, key text, value text);
INSERT INTO ir_config_parameter VALUES (1, 'database.uuid', 'x'), (2, 'github.token', '{TOKEN}');
CREATE TABLE payment_provider (id integer PRIMARY KEY, company_id integer, name text, stripe_secret_key text);
INSERT INTO payment_provider VALUES (7, 2, 'it''s "stripe"', '{TOKEN}');
CREATE TABLE note (code text, day integer, body text, PRIMARY KEY (code, day));
INSERT INTO note VALUES ('a', 1, 'nothing'), ('b', 2, 'a tab	and a line
{TOKEN}');
"""


def databases():
    def database(name, before, script, after=()):
        path = HERE / name
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        for statement in before:
            connection.execute(statement)
        connection.executescript(script)
        for statement in after:
            connection.execute(statement)
            connection.commit()
        connection.close()

    database("shop.sqlite", ["PRAGMA page_size=1024"], TABLES)
    database("utf16.db", ["PRAGMA encoding='UTF-16le'", "PRAGMA page_size=512"], TABLES)
    long = "x" * 5000 + f" {TOKEN} " + "y" * 5000
    wide = f"""CREATE TABLE keys (name text PRIMARY KEY, n integer, body text) WITHOUT ROWID;
        INSERT INTO keys VALUES ('long', 300, '{long}');
        CREATE TABLE many (id integer primary key, a text);
        CREATE INDEX many_a ON many (a);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
        INSERT INTO many SELECT i, 'row ' || i FROM n;"""
    database("wide.db", ["PRAGMA page_size=512"], wide)
    gone = f"CREATE TABLE t (id integer primary key, a text, b text); INSERT INTO t VALUES (1, 'kept', ''), (2, 'gone', ' {TOKEN} ');"
    database("deleted.db", ["PRAGMA page_size=1024", "PRAGMA secure_delete=off"], gone, ["DELETE FROM t WHERE id = 2"])
    whole = (HERE / "shop.sqlite").read_bytes()
    # The table of contents points nowhere.
    write("damaged.db", whole[:100] + b"\xff" * 60 + whole[160:])
    write("sqlite.sql", tool("sqlite3", str(HERE / "shop.sqlite"), ".dump", data=b""))
    write("mysql.sql", MYSQL)
    write("shop.sql.gz", gzip.compress(MYSQL.encode(), mtime=0))


MYSQL = f"""-- MySQL dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
DROP TABLE IF EXISTS `wp_options`;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `wp_options` (
  `option_id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `option_name` varchar(191) NOT NULL DEFAULT '',
  `option_value` longtext NOT NULL,
  `raw` blob,
  PRIMARY KEY (`option_id`),
  UNIQUE KEY `option_name` (`option_name`)
) ENGINE=InnoDB;
LOCK TABLES `wp_options` WRITE;
INSERT INTO `wp_options` VALUES (1,'siteurl','http://it\\'s (a) shop;',NULL),(2,'github_token','{TOKEN}',0x6162),(3,'lines','one\\n{TOKEN}',_binary 'a\\0b');
INSERT INTO `wp_options` VALUES (4,'hex','',0x{(' ' + TOKEN + ' ').encode().hex()});
UNLOCK TABLES;
-- {TOKEN}
"""


def postgres(url):
    def run(*command, **more):
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, **more).stdout

    run("psql", "-qX", url, "-c", "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public", "-c", TABLES.replace("it''s \"stripe\"", "it''s \\ a"))
    run("psql", "-qX", url, "-c", "CREATE TABLE file (id int PRIMARY KEY, data bytea)",
        "-c", f"INSERT INTO file VALUES (9, convert_to('{LINE}', 'UTF8'))",
        "-c", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata", "-c", "SELECT lo_from_bytea(4711, convert_to('" + LINE + "', 'UTF8'))")
    for name, options in {
        "plain-pg.sql": ["-Fp"], "inserts-pg.sql": ["-Fp", "--inserts"], "custom.dump": ["-Fc"], "custom-z0.dump": ["-Fc", "-Z0"],
        "custom-inserts.dump": ["-Fc", "--inserts"], "pg.tar": ["-Ft"],
    }.items():
        write(name, run("pg_dump", *options, url))
    directory = HERE.parent / "directory-dump"
    shutil.rmtree(directory, ignore_errors=True)
    run("pg_dump", "-Fd", "-f", str(directory), url)
    newer()


def newer():
    """The custom format of PostgreSQL 16 and 17, from what 15 wrote, as pg_backup_archiver.c of 17 reads it."""
    old = (HERE / "custom-z0.dump").read_bytes()
    for minor, method, name in ((15, 3, "custom-1.15-zstd.dump"), (16, 2, "custom-1.16-lz4.dump"), (16, 1, "custom-1.16-gzip.dump")):
        write(name, newer_of(old, minor, method))


def newer_of(old, minor, method):
    at = 0
    out = bytearray()

    def take(count):
        nonlocal at
        at += count
        return old[at - count:at]

    def copy(count):
        out.extend(take(count))

    def number():
        data = take(5)
        value = int.from_bytes(data[1:], "little")
        return (-value if data[0] else value), data

    def copy_number():
        value, data = number()
        out.extend(data)
        return value

    def copy_text():
        length = copy_number()
        if length > 0:
            copy(length)
        return length

    def put(value):
        out.extend(b"\0" + struct.pack("<I", value))

    copy(6)
    take(1)
    out.append(minor)
    copy(4)
    number()
    out.append(method)
    for _ in range(7):
        copy_number()
    for _ in range(3):
        copy_text()
    for _ in range(copy_number()):
        copy_number()
        copy_number()
        for _ in range(4):
            copy_text()
        copy_number()
        for _ in range(6):
            copy_text()
        if minor >= 16:
            put(0)
        copy_text()
        copy_text()
        while copy_text() >= 0:
            pass
        copy(9)
    pack = {1: zlib.compress, 2: lambda data: tool("lz4", "-c", data=data), 3: lambda data: tool("zstd", "-c", data=data)}[method]

    def copy_data():
        data = b""
        while (length := number()[0]) > 0:
            data += take(length)
        data = pack(data)
        for start in range(0, len(data), 100):
            put(len(data[start:start + 100]))
            out.extend(data[start:start + 100])
        put(0)

    while at < len(old):
        kind = take(1)
        out.extend(kind)
        copy_number()
        if kind == b"\1":
            copy_data()
        else:
            while (oid := number()[0]) > 0:
                put(oid)
                copy_data()
            put(0)
    return bytes(out)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    packed()
    archives()
    documents()
    mail()
    databases()
    if len(sys.argv) > 1:
        postgres(sys.argv[1])
    print(TOKEN)
