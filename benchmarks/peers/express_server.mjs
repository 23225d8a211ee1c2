// Express and express-session, in memory, on Redis or on MongoDB.
// Says its port on the first line and ends when its standard input does.
import { createServer } from "node:http";
import MongoStore from "connect-mongo";
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

async function storeFor(url) {
  if (url.startsWith("redis:")) {
    const client = createClient({ url });
    await client.connect();
    return new RedisStore({ client });
  }
  if (url.startsWith("mongodb:")) {
    return MongoStore.create({ mongoUrl: url, dbName: "express" });
  }
  return new session.MemoryStore();
}

function withoutSessions() {
  return express().get("/bare", (request, response) => {
    response.type("text").send("ok");
  });
}

function withSessions(store) {
  const application = express();
  application.use(
    session({
      store,
      secret: "a secret for benchmarks, and for nothing else",
      resave: false,
      saveUninitialized: false,
    }),
  );
  application.get("/read", (request, response) => {
    if (!(request.session.n >= 1)) {
      throw new Error("the session is not the one that was begun");
    }
    response.type("text").send("ok");
  });
  application.get("/write", (request, response) => {
    request.session.n = (request.session.n ?? 0) + 1;
    response.type("text").send(String(request.session.n));
  });
  return application;
}

const url = process.argv[process.argv.indexOf("--store") + 1];
const plain = withoutSessions();
const others = withSessions(await storeFor(url));
const server = createServer((request, response) => {
  (request.url === "/bare" ? plain : others)(request, response);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit(0));
