"""SQLAlchemy: a `scoped_session`, which belongs to a thread, removed at the end of each request."""

from urllib.parse import parse_qs

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

from . import DATABASE, note_end

engine = create_engine(f"sqlite:///{DATABASE}")
Session = scoped_session(sessionmaker(bind=engine))


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Export:
    """Iterates in the session of its thread, and removes it in `close()`."""

    def __init__(self, name, statement):
        self.name = name
        self.rows = Session.scalars(statement.execution_options(yield_per=20))

    def __iter__(self):
        for row in self.rows:
            yield f"{row.id},{self.name},{Session().info['user']},{row.text}\n".encode()

    def close(self):
        Session.remove()
        note_end("sqlalchemy", self.name)


def application(environ, start_response):
    name = parse_qs(environ["QUERY_STRING"]).get("user", ["nobody"])[0]
    start_response("200 OK", [("Content-Type", "text/csv")])
    left = Session().info.setdefault("user", name)
    if environ["PATH_INFO"] == "/export":
        return Export(name, select(Row).order_by(Row.id))
    try:
        return [f"{left},{len(Session.scalars(select(Row.id).limit(5)).all())}".encode()]
    finally:
        Session.remove()
