// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Books
/// @notice The contract's accounting, written a second time and unpacked: one plain number per
/// mapping entry, no words to pack, no calldata, no tokens to call, nobody to ask.
/// @dev Two things inherit it. `proofs/` exposes its transitions to any caller in any order and has
/// theorems about them proved without bounds. The invariant tests keep one as a shadow ledger and
/// compare it with the contract after every call. The theorems speak of the contract as far as the
/// comparison does: it is the link, and no proof replaces it.
///
/// Who may call and who signed is left to the inheritor; what a call does to the books is here.
/// A failing check reverts and so changes nothing. Every check is a `require`, which the model
/// checker understands, unlike a revert inside an `if`.
///
/// A statement is settled in steps, so that no proof has to unroll a loop: `_begin` debits the
/// deposit, `_row` credits one provider, `_end` insists that the rows came to the total. In between,
/// `due` has left the deposit and reached no provider, and every other transition is refused.
abstract contract Books {
    error ZeroUnits();
    error TokenNotRegistered();
    error TokenAlreadyRegistered();
    error DepositTooLarge();
    error ThawExceedsBalance();
    error NothingThawing();
    error StillThawing();
    error WrongEpoch();
    error MalformedRows();
    error UnknownProvider();
    error InsufficientBalance();
    error CreditOverflow();
    error TooManyProviders();
    error StatementOpen();
    error NoStatementOpen();

    /// @dev What the fields of a deposit, a row and a credit hold at most.
    uint256 internal constant MAX_UNITS = 2 ** 64 - 1;
    uint256 internal constant MAX_ROW = 2 ** 48 - 1;
    uint256 internal constant MAX_CREDIT = 2 ** 63 - 1;
    uint256 internal constant MAX_UINT32 = 2 ** 32 - 1;

    uint256 internal immutable thawPeriod;

    uint256 internal providerCount;
    mapping(address token => uint256) internal unitOf;

    mapping(bytes32 id => uint256) internal balanceOf;
    mapping(bytes32 id => uint256) internal thawingOf;
    mapping(bytes32 id => uint256) internal spentOf;
    mapping(bytes32 id => uint256) internal epochOf;
    mapping(bytes32 id => uint256) internal thawEndsOf;
    /// @dev Fixed by the first deposit. In the contract the id, which hashes the key, fixes it.
    mapping(bytes32 id => address) internal tokenOf;

    mapping(address token => mapping(uint256 provider => uint256)) internal creditOf;

    // The statement that is being settled.
    bool internal open;
    address internal openToken;
    uint256 internal due;
    uint256 internal lastProvider;

    // Ghosts, all in units and per token: what has ever flowed, and two sums that follow every write
    // of a balance or a credit. A sum contains each of its terms, so that taking a term out of it
    // never fails.
    mapping(address token => uint256) internal deposited;
    mapping(address token => uint256) internal withdrawn;
    mapping(address token => uint256) internal debited;
    mapping(address token => uint256) internal credited;
    mapping(address token => uint256) internal claimed;
    mapping(address token => uint256) internal balances;
    mapping(address token => uint256) internal credits;

    modifier closed() {
        require(!open, StatementOpen());
        _;
    }

    constructor(uint256 period) {
        require(period != 0 && period <= MAX_UINT32);
        thawPeriod = period;
    }

    /// @dev Units of the token that have come in and not gone out.
    function holdings(address token) internal view returns (uint256) {
        return deposited[token] - withdrawn[token] - claimed[token];
    }

    function _registerToken(address token, uint256 unit) internal closed {
        require(unitOf[token] == 0, TokenAlreadyRegistered());
        require(token != address(0) && unit != 0 && unit <= 1e18);
        unitOf[token] = unit;
    }

    function _register(uint256 count) internal closed {
        require(count <= MAX_UINT32 - providerCount, TooManyProviders());
        providerCount += count;
    }

    function _deposit(bytes32 id, address token, uint256 units) internal closed {
        require(units != 0 && units <= MAX_UNITS, ZeroUnits());
        require(unitOf[token] != 0, TokenNotRegistered());
        require(tokenOf[id] == address(0) || tokenOf[id] == token);
        require(units + balanceOf[id] + spentOf[id] <= MAX_UNITS, DepositTooLarge());
        tokenOf[id] = token;
        deposited[token] += units;
        balances[token] += units;
        balanceOf[id] += units;
    }

    function _thaw(bytes32 id, uint256 units) internal closed {
        require(units <= balanceOf[id], ThawExceedsBalance());
        uint256 ends = block.timestamp + thawPeriod;
        thawingOf[id] = units;
        thawEndsOf[id] = units == 0 ? 0 : (ends < MAX_UINT32 ? ends : MAX_UINT32);
    }

    function _withdraw(bytes32 id) internal closed returns (uint256 units) {
        units = thawingOf[id];
        require(units != 0, NothingThawing());
        require(block.timestamp >= thawEndsOf[id], StillThawing());
        thawingOf[id] = 0;
        thawEndsOf[id] = 0;
        withdrawn[tokenOf[id]] += units;
        balances[tokenOf[id]] -= units;
        balanceOf[id] -= units;
    }

    /// @dev Debits a signed statement's total. What is not thawing is spent first.
    function _begin(bytes32 id, uint256 epoch, uint256 total) internal closed {
        require(epoch == epochOf[id] + 1 && epoch <= MAX_UINT32, WrongEpoch());
        require(total <= balanceOf[id], InsufficientBalance());
        spentOf[id] += total;
        epochOf[id] = epoch;
        debited[tokenOf[id]] += total;
        balances[tokenOf[id]] -= total;
        balanceOf[id] -= total;
        thawingOf[id] = thawingOf[id] < balanceOf[id] ? thawingOf[id] : balanceOf[id];
        open = true;
        openToken = tokenOf[id];
        due = total;
        lastProvider = 0;
    }

    function _row(uint256 provider, uint256 units) internal {
        require(open, NoStatementOpen());
        require(provider > lastProvider && units != 0 && units <= MAX_ROW, MalformedRows());
        require(provider <= providerCount, UnknownProvider());
        require(units <= due, MalformedRows());
        require(creditOf[openToken][provider] + units <= MAX_CREDIT, CreditOverflow());
        lastProvider = provider;
        due -= units;
        credited[openToken] += units;
        credits[openToken] += units;
        creditOf[openToken][provider] += units;
    }

    function _end() internal {
        require(open, NoStatementOpen());
        require(due == 0, MalformedRows());
        open = false;
    }

    /// @dev A claim whose transfer succeeds. One that fails leaves the books as they are.
    function _claim(address token, uint256 provider) internal closed returns (uint256 units) {
        require(unitOf[token] != 0, TokenNotRegistered());
        units = creditOf[token][provider];
        claimed[token] += units;
        credits[token] -= units;
        creditOf[token][provider] = 0;
    }
}

/// @title BooksOfStatements
/// @notice Settles whole statements in {Books}, for the shadow ledger. No proof rests on it.
abstract contract BooksOfStatements is Books {
    /// @dev In the order of `ISettlement.Outcome`, whose last two, the signatures', are the
    /// inheritor's to know.
    enum Verdict {
        Settled,
        WrongEpoch,
        MalformedRows,
        UnknownProvider,
        InsufficientBalance
    }

    /// @dev What the contract makes of a statement before it looks at signatures, the first failing
    /// check in the contract's order. Does not foresee `CreditOverflow`, at which all reverts.
    function _verdict(bytes32 id, uint256 epoch, uint256[] memory providers, uint256[] memory units)
        internal
        view
        returns (Verdict)
    {
        if (epoch != epochOf[id] + 1) return Verdict.WrongEpoch;
        uint256 total;
        uint256 last;
        for (uint256 i; i < providers.length; ++i) {
            if (providers[i] <= last || units[i] == 0) return Verdict.MalformedRows;
            last = providers[i];
            total += units[i];
        }
        if (last > providerCount) return Verdict.UnknownProvider;
        if (total > balanceOf[id]) return Verdict.InsufficientBalance;
        return Verdict.Settled;
    }

    /// @dev Settles a statement whose verdict and signatures are good.
    function _settle(bytes32 id, uint256 epoch, uint256[] memory providers, uint256[] memory units)
        internal
    {
        uint256 total;
        for (uint256 i; i < units.length; ++i) {
            total += units[i];
        }
        _begin(id, epoch, total);
        for (uint256 i; i < units.length; ++i) {
            _row(providers[i], units[i]);
        }
        _end();
    }
}
