"""A purse: dollars that several runs spend from at once, and never more than are in it.

Before a call is sent, the most it can cost is reserved; when its answer is paid for, the reservation becomes what it
really cost. A call that does not fit while others hold reservations waits for them, since most cost less than they may.
"""

from decimal import Decimal

import anyio

from fbench.engine.errors import FbenchError


class PurseEmpty(FbenchError):
    """What is left pays for no further call. Ends a run as `budget_exceeded:suite_cost`."""


class Purse:
    """See the module. For one event loop; a `with`-less pair `reserve` and `settle` brackets each call.

    Attributes:
        cap_usd: what is in it.
        spent_usd: what answers have cost.
        reserved_usd: the most that the calls in flight can cost.
    """

    def __init__(self, cap_usd: Decimal, *, spent_usd: Decimal = Decimal(0)) -> None:
        self.cap_usd = cap_usd
        self.spent_usd = spent_usd
        self.reserved_usd = Decimal(0)
        self._changed = anyio.Condition()

    async def reserve(self, most_usd: Decimal, least_usd: Decimal) -> Decimal:
        """Dollars for one call: `most_usd`, or what is left when nobody else holds any and that is `least_usd` or more.

        Waits while others hold reservations that may come back. Whoever gets dollars must `settle` them.

        Raises:
            PurseEmpty: not even `least_usd` are left.
        """
        async with self._changed:
            while True:
                free_usd = self.cap_usd - self.spent_usd - self.reserved_usd
                if most_usd <= free_usd:
                    granted_usd = most_usd
                    break
                if self.cap_usd - self.spent_usd < least_usd:
                    msg = f"${self.spent_usd} of ${self.cap_usd} are spent, which leaves too little for one more call"
                    raise PurseEmpty(msg)
                if self.reserved_usd == 0:
                    granted_usd = free_usd
                    break
                await self._changed.wait()
            self.reserved_usd += granted_usd
        return granted_usd

    async def settle(self, reserved_usd: Decimal, cost_usd: Decimal) -> None:
        """What was reserved for a call has become what it cost; 0 when it came to nothing."""
        with anyio.CancelScope(shield=True):  # a lock held for a moment; a reservation must not outlive its call
            async with self._changed:
                self.reserved_usd -= reserved_usd
                self.spent_usd += cost_usd
                self._changed.notify_all()
