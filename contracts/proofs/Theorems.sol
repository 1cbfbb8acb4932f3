// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Theorem} from "./Theorem.sol";

// One contract per theorem, in the order of the table that `scripts/prove` prints. Each starts with
// the number of the invariant that it serves, if it serves a numbered one.
// `scripts/prove` compiles each by itself.

/// @notice Solvency in units: what came in and did not go out is what is owed to deposits, to credits
/// and to the statement being settled, exactly.
contract I1_HoldingsAreWhatIsOwed is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        uint256 owed = balances[t] + credits[t] + (open && openToken == t ? due : 0);
        return deposited[t] == withdrawn[t] + claimed[t] + owed;
    }
}

/// @notice A balance falls only by a withdrawal, by what was thawing and not before its time, or by
/// a statement's total.
contract I2_ABalanceFallsOnlyByWithdrawalOrStatement is Theorem {
    uint256 internal balance;
    uint256 internal thawing;
    uint256 internal ends;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        balance = balanceOf[d];
        thawing = thawingOf[d];
        ends = thawEndsOf[d];
    }

    function follows() internal view override returns (bool) {
        if (balanceOf[d] >= balance) return true;
        uint256 fall = balance - balanceOf[d];
        if (named != d) return false;
        if (call == Call.Begin) return fall == amount;
        return call == Call.Withdraw && fall == thawing && block.timestamp >= ends;
    }
}

/// @notice No outrunning: what is withdrawn was asked for in the last thaw, a whole period ago, or,
/// where the clock's field ends, in 2106.
contract I2_NothingLeavesBeforeThePeriodIsOver is Theorem {
    uint256 internal askedAt;
    uint256 internal asked;
    uint256 internal thawing;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        if (thawingOf[d] == 0) return true;
        uint256 ends = askedAt + thawPeriod;
        return thawingOf[d] <= asked && thawEndsOf[d] == (ends < MAX_UINT32 ? ends : MAX_UINT32);
    }

    function note() internal override {
        thawing = thawingOf[d];
        if (call != Call.Thaw || named != d) return;
        // Where this sum overflows, the thaw reverts as well.
        require(block.timestamp <= type(uint256).max - thawPeriod);
        askedAt = block.timestamp;
        asked = amount;
    }

    function follows() internal view override returns (bool) {
        if (call != Call.Withdraw || named != d) return true;
        bool over = block.timestamp >= askedAt + thawPeriod || block.timestamp >= MAX_UINT32;
        return over && thawing != 0 && thawing <= asked;
    }
}

/// @notice `spent` never falls, and rises only by a statement's total.
contract I3_SpentRisesByStatementsOnly is Theorem {
    uint256 internal spent;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        spent = spentOf[d];
    }

    function follows() internal view override returns (bool) {
        return spentOf[d] == spent + (call == Call.Begin && named == d ? amount : 0);
    }
}

/// @notice `epoch` grows by exactly one per statement of the deposit, and by nothing else.
contract I3_EpochCountsStatements is Theorem {
    uint256 internal epoch;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        epoch = epochOf[d];
    }

    function follows() internal view override returns (bool) {
        return epochOf[d] == epoch + (call == Call.Begin && named == d ? 1 : 0);
    }
}

/// @notice Whenever no statement is open, what deposits were debited is what providers were
/// credited.
contract I4_DebitsAreCredits is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return debited[t] == credited[t] + (open && openToken == t ? due : 0);
    }
}

/// @notice From a statement's first step to its last: the rows so far, the change of `spent` and the
/// change of the sum of credits agree, and an ended statement's are all equal to its total.
contract I4_RowsAreSpentAreCredits is Theorem {
    uint256 internal spentBefore;
    uint256 internal creditsBefore;
    uint256 internal rows;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {
        require(!open);
    }

    /// @dev `d` is the deposit of the open statement; other deposits' statements say nothing.
    bool internal ours;

    function holds() internal view override returns (bool) {
        if (!open || !ours) return true;
        return spentOf[d] == spentBefore + rows + due && credits[openToken] == creditsBefore + rows;
    }

    function note() internal override {
        if (call == Call.Begin) {
            ours = named == d;
            spentBefore = spentOf[d];
            creditsBefore = credits[namedToken];
            rows = 0;
        }
        if (call == Call.Row) {
            // A sum of rows that does not fit 256 bits cannot be due.
            require(amount <= type(uint256).max - rows);
            rows += amount;
        }
    }

    function follows() internal view override returns (bool) {
        if (call != Call.End || !ours) return true;
        return rows == spentOf[d] - spentBefore && rows == credits[namedToken] - creditsBefore;
    }
}

/// @notice A credit falls only by a claim of its provider in its token: to nothing, by exactly what
/// counts as claimed.
contract I5_ACreditFallsOnlyByItsClaim is Theorem {
    uint256 internal credit;
    uint256 internal paid;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        credit = creditOf[t][p];
        paid = claimed[t];
    }

    function follows() internal view override returns (bool) {
        if (creditOf[t][p] >= credit) return true;
        return call == Call.Claim && namedToken == t && namedProvider == p && creditOf[t][p] == 0
            && claimed[t] == paid + credit;
    }
}

/// @notice Conservation: deposited = withdrawn + debited + Σ balances.
contract C3_DepositedIsWithdrawnDebitedOrHeld is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return deposited[t] == withdrawn[t] + debited[t] + balances[t];
    }
}

/// @notice Claimed is at most credited, and the difference is Σ credits.
contract C5_CreditedIsClaimedOrClaimable is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return credited[t] == claimed[t] + credits[t] && claimed[t] <= credited[t];
    }
}

/// @notice What ever flowed, and the number of providers, never falls.
contract C9_CountersNeverFall is Theorem {
    uint256 internal d0;
    uint256 internal w0;
    uint256 internal s0;
    uint256 internal r0;
    uint256 internal k0;
    uint256 internal n0;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        (d0, w0, s0) = (deposited[t], withdrawn[t], debited[t]);
        (r0, k0, n0) = (credited[t], claimed[t], providerCount);
    }

    function follows() internal view override returns (bool) {
        return deposited[t] >= d0 && withdrawn[t] >= w0 && debited[t] >= s0 && credited[t] >= r0
            && claimed[t] >= k0 && providerCount >= n0;
    }
}

/// @notice A call on one token changes no counter, sum or credit of another.
contract C12_TokensAreIsolated is Theorem {
    uint256 internal d0;
    uint256 internal w0;
    uint256 internal s0;
    uint256 internal r0;
    uint256 internal k0;
    uint256 internal b0;
    uint256 internal c0;
    uint256 internal p0;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        (d0, w0, s0, r0) = (deposited[t], withdrawn[t], debited[t], credited[t]);
        (k0, b0, c0, p0) = (claimed[t], balances[t], credits[t], creditOf[t][p]);
    }

    function follows() internal view override returns (bool) {
        if (namedToken == t) return true;
        return deposited[t] == d0 && withdrawn[t] == w0 && debited[t] == s0 && credited[t] == r0
            && claimed[t] == k0 && balances[t] == b0 && credits[t] == c0 && creditOf[t][p] == p0;
    }
}

/// @notice A call changes no deposit but the one that it names.
contract DepositsAreIsolated is Theorem {
    uint256 internal b0;
    uint256 internal t0;
    uint256 internal s0;
    uint256 internal e0;
    uint256 internal z0;
    address internal k0;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        (b0, t0, s0) = (balanceOf[d], thawingOf[d], spentOf[d]);
        (e0, z0, k0) = (epochOf[d], thawEndsOf[d], tokenOf[d]);
    }

    function follows() internal view override returns (bool) {
        if (named == d && call != Call.Row && call != Call.End && call != Call.Claim) return true;
        return balanceOf[d] == b0 && thawingOf[d] == t0 && spentOf[d] == s0 && epochOf[d] == e0
            && thawEndsOf[d] == z0 && tokenOf[d] == k0;
    }
}

/// @notice A call changes no credit but that of the provider and token that it names.
contract ProvidersAreIsolated is Theorem {
    uint256 internal credit;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        credit = creditOf[t][p];
    }

    function follows() internal view override returns (bool) {
        bool ours =
            (call == Call.Row || call == Call.Claim) && namedToken == t && namedProvider == p;
        return ours || creditOf[t][p] == credit;
    }
}

/// @notice A row raises the credit that it names by its units.
contract ARowCreditsItsUnits is Theorem {
    uint256 internal credit;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        credit = creditOf[t][p];
    }

    function follows() internal view override returns (bool) {
        if (call != Call.Row || namedToken != t || namedProvider != p) return true;
        return creditOf[t][p] == credit + amount;
    }
}

/// @notice At most what is held is thawing.
contract ThawingIsWithinTheBalance is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return thawingOf[d] <= balanceOf[d];
    }
}

/// @notice The five fields of a deposit fit their widths; balance and spent even together.
contract ADepositFitsItsSlot is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return balanceOf[d] + spentOf[d] <= MAX_UNITS && thawingOf[d] <= MAX_UNITS
            && epochOf[d] <= MAX_UINT32 && thawEndsOf[d] <= MAX_UINT32;
    }
}

/// @notice A credit fits its 63-bit lane.
contract ACreditFitsItsLane is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return creditOf[t][p] <= MAX_CREDIT;
    }
}

/// @notice Only registered providers have credit.
contract OnlyTheRegisteredHaveCredit is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return
            (creditOf[t][p] == 0 || (p != 0 && p <= providerCount)) && providerCount <= MAX_UINT32;
    }
}

/// @notice A token's unit and a deposit's token never change once they are set.
contract UnitsAndTokensAreFixed is Theorem {
    uint256 internal unit;
    address internal token;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        unit = unitOf[t];
        token = tokenOf[d];
    }

    function follows() internal view override returns (bool) {
        return (unit == 0 || unitOf[t] == unit) && (token == address(0) || tokenOf[d] == token);
    }
}

/// @notice A deposit that was never funded is empty, and what is funded is in a registered token.
contract NothingComesFromNothing is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        if (unitOf[address(0)] != 0) return false;
        if (tokenOf[d] == address(0)) {
            return balanceOf[d] == 0 && spentOf[d] == 0 && thawingOf[d] == 0;
        }
        return unitOf[tokenOf[d]] != 0;
    }
}

/// @notice While a statement is open, nothing but its rows and its end can happen; closed, nothing
/// is due.
contract AStatementIsAtomic is Theorem {
    bool internal was;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function holds() internal view override returns (bool) {
        return open || due == 0;
    }

    function note() internal override {
        was = open;
    }

    function follows() internal view override returns (bool) {
        return was == (call == Call.Row || call == Call.End);
    }
}

/// @notice Within a statement, providers strictly ascend, so that none is named twice.
contract ProvidersAscend is Theorem {
    uint256 internal last;

    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function note() internal override {
        last = lastProvider;
    }

    function follows() internal view override returns (bool) {
        if (call == Call.Begin) return lastProvider == 0;
        return lastProvider == last
            || (call == Call.Row && namedProvider == lastProvider && lastProvider > last);
    }
}
