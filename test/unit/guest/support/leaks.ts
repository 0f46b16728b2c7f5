import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Watches the connections that this process opens from now on. On disposal all of them must be closed, from
 * our side, and no more timers run than before. It must be disposed of while the servers still live: their end
 * would close what was left open.
 */
export function leakCheck(): AsyncDisposable {
  const timersBefore = timers();
  const sockets: Socket[] = [];
  const onSocket = (message: unknown): void => {
    if (hasSocket(message)) sockets.push(message.socket);
  };
  subscribe("net.client.socket", onSocket);
  return {
    [Symbol.asyncDispose]: async () => {
      unsubscribe("net.client.socket", onSocket);
      // No timers in this loop: they would count themselves.
      const end = performance.now() + 1000;
      while (performance.now() < end && (sockets.some(isOpen) || timers() > timersBefore)) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal(sockets.filter(isOpen).length, 0, "connections were left open");
      assert.ok(timers() <= timersBefore, "timers were left running");
    },
  };
}

function hasSocket(message: unknown): message is { socket: Socket } {
  return typeof message === "object" && message !== null && "socket" in message;
}

function isOpen(socket: Socket): boolean {
  return !socket.destroyed;
}

function timers(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
}

/** Waits until `condition` holds, for two seconds at most. */
export async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 2000;
  while (!condition()) {
    assert.ok(performance.now() < end, "the condition did not come true in time");
    await sleep(5);
  }
}
